"""Mutants of the commands: messages, exit codes, output, Ctrl-C."""

COMMANDS = "tests/cli/test_cli.py"
VIDEO = "tests/cli/test_video_command.py"

MUTANTS = [
    (
        "Ctrl-C exits with 1",
        "cli/__init__.py",
        "        return 130",
        "        return 1",
        f"{COMMANDS}::test_photos_that_were_done_when_ctrl_c_came_are_kept",
    ),
    (
        "output is flushed too late to notice a closed pipe",
        "cli/__init__.py",
        "            finally:\n                sys.stdout.flush()",
        "            finally:\n                pass",
        f"{COMMANDS}::test_no_command_minds_a_closed_pipe",
    ),
    (
        "log lines go to the root logger, too",
        "cli/__init__.py",
        "    logger.propagate = False\n",
        "",
        f"{COMMANDS}::test_log_lines_and_warnings_are_lines_of_the_command",
    ),
    (
        "the second command logs twice",
        "cli/__init__.py",
        "        logger.removeHandler(handler)\n",
        "",
        f"{COMMANDS}::test_log_lines_and_warnings_are_lines_of_the_command",
    ),
    (
        "FFmpeg prints",
        "cli/__init__.py",
        '    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")',
        "    pass",
        f"{COMMANDS}::test_ffmpeg_prints_nothing_of_its_own",
    ),
    (
        "OpenCV prints",
        "cli/__init__.py",
        "        opencv.setLogLevel(0)  # silent",
        "        pass",
        f"{COMMANDS}::test_opencv_prints_nothing_of_its_own",
    ),
    (
        "an unusable argument is reported on stdout",
        "cli/__init__.py",
        '        complain(f"{message} (',
        '        print(f"{message} (',
        f"{COMMANDS}::test_what_cannot_be_done_exits_with_two_and_a_reason",
    ),
    (
        "warnings look as Python prints them",
        "cli/__init__.py",
        "            warnings.showwarning = _show_warning",
        "            pass",
        f"{COMMANDS}::test_log_lines_and_warnings_are_lines_of_the_command",
    ),
    (
        "progress that nobody reads stops the work",
        "cli/options.py",
        "    with suppress(OSError):\n        print",
        "    if True:\n        print",
        f"{COMMANDS}::test_nobody_listening_to_the_progress_does_not_stop_the_work",
    ),
    (
        "a photo may be overwritten",
        "cli/targets.py",
        "    if both := set(places) & {os.path.realpath(source) for source in sources}:",
        "    if both := set():",
        f"{COMMANDS}::test_what_is_read_is_not_written_over",
    ),
    (
        "the default model is not marked",
        "cli/commands/models.py",
        'mark = " *" if card.name == DEFAULT_MODEL else ""',
        'mark = ""',
        f"{COMMANDS}::test_models_are_a_table_of_five_columns_with_the_default_marked",
    ),
    (
        "a stopped video exits as a whole one",
        "cli/commands/video.py",
        "    if stopped and total:",
        "    if False:",
        f"{VIDEO}::test_ctrl_c_keeps_what_was_written",
    ),
    (
        "a stopped camera is an error",
        "cli/commands/video.py",
        "    if stopped and total:",
        "    if stopped:",
        f"{VIDEO}::test_ctrl_c_keeps_what_was_written",
    ),
    (
        "a cut-off video exits with 0",
        "cli/commands/video.py",
        "    return 1 if ended and video.is_truncated(frames, seconds) else 0",
        "    return 0",
        f"{VIDEO}::test_a_cut_off_video_exits_with_one_and_a_warning",
    ),
    (
        "a video ended by --frames is cut off",
        "cli/commands/video.py",
        "    ended = not stopped and frames != options.frames",
        "    ended = True",
        f"{VIDEO}::test_a_cut_off_video_exits_with_one_and_a_warning",
    ),
    (
        "a stopped folder does not count its photos",
        "output/folders/run.py",
        "            count = before + tally.photos - resumed",
        "            count = before",
        f"{COMMANDS}::test_ctrl_c_stops_a_folder_in_one_line_and_the_next_run_goes_on",
    ),
]
