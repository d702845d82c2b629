"""`face-landmarks demo`: a page on this machine with the camera or a photo."""

from __future__ import annotations

import argparse
import webbrowser
from typing import Final

from face_landmarks.cli.options import EXIT_CODES, Commands, make_aligner, model_options, say
from face_landmarks.demo.server import DemoServer
from face_landmarks.models.registry import DEFAULT_VIDEO_MODEL

_EXAMPLES: Final = f"""examples:
  face-landmarks demo
  face-landmarks demo --detector yunet --port 8000 --no-browser

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Add the command and its arguments."""
    demo = commands.add_parser(
        "demo",
        parents=[model_options(DEFAULT_VIDEO_MODEL)],
        help="show landmarks live: a page with the camera or a photo",
        description="Show landmarks live on the picture of a camera or on a photo, on a page that\n"
        "this program serves to a browser of this machine alone. Ctrl-C ends it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument(
        "--port", type=_port, default=0, metavar="N", help="port to listen on (default: a free one)"
    )
    demo.add_argument(
        "--no-browser", action="store_true", help="print the page's address, but do not open it"
    )
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    with DemoServer(make_aligner(options), options.port) as server:
        server.aligner.detector  # noqa: B018 - loaded now, not at the first picture
        try:
            print(server.url, flush=True)
            say("face-landmarks: this address opens the page once; Ctrl-C ends the program")
            if not options.no_browser:
                webbrowser.open(server.url)
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:  # the regular end
            return 0
    return 0


def _port(text: str) -> int:
    """The type of an argument that is a port."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)
