"""A report in a real browser: order, filters, keys, the whole photo, names, colours, thousands of faces."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from chromium import Browser, find_browser

from face_landmarks import Faces, write_report
from face_landmarks.layouts import IBUG_68
from face_landmarks.reports.evaluation import write_evaluation_report

pytestmark = [
    pytest.mark.skipif(find_browser() is None, reason="needs Chromium"),
    pytest.mark.xdist_group("browser"),
]
HOSTILE = "<img src=x onerror=document.title=1>.png"
SCORES = (0.9, 0.3, 0.6)


def faces(score, size=100.0, count=1):
    """Faces whose 68 landmarks lie on a circle of this diameter."""
    turns = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    circle = 60 + size / 2 * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    landmarks = np.stack([circle + 130 * number for number in range(count)]).astype(np.float32)
    boxes = np.concatenate([landmarks.min(axis=1), landmarks.max(axis=1)], axis=1)
    scores = np.full((count, 68), score)
    return Faces(landmarks, scores, boxes, np.ones(count), landmark_errors=10 * (1 - scores))


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos of several colours, and a page of them."""
    folder = tmp_path_factory.mktemp("report")
    results = []
    for number, score in enumerate(SCORES):
        photo = folder / (HOSTILE if number == 2 else f"photo{number}.png")
        cv2.imwrite(str(photo), np.full((300, 400, 3), 60 + 60 * number, np.uint8))
        results.append((photo, faces(score, 100.0 if number else 50.0, 2 if number == 1 else 1)))
    results.append((folder / f"broken{HOSTILE}", f"cannot open {HOSTILE}"))
    write_report(results, folder / "report.html", title=HOSTILE)
    return folder


@pytest.fixture
def page(browser, folder):
    browser.events.clear()
    browser.dark(False)
    browser.resize(1200, 900)
    browser.open("about:blank", "true")
    browser.open(folder / "report.html")
    yield browser
    assert browser.complaints() == []
    assert all(url.startswith("file:") for url in browser.requests())


def texts(page, selector):
    return page.run(f"[...document.querySelectorAll({selector!r})].map((e) => e.textContent)")


def set_field(page, name, value):
    page.run(
        f"(() => {{ const e = document.getElementById({name!r}); e.value = {value!r}; "
        "e.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    time.sleep(0.3)


def test_the_least_sure_face_comes_first_and_everything_is_said(page):
    assert texts(page, ".card strong") == ["score 0.30", "score 0.30", "score 0.60", "score 0.90"]
    assert texts(page, ".card .file")[0].endswith("photo1.png · 0")
    labels = page.run("[...document.querySelectorAll('.card button')].map((b) => b.ariaLabel)")
    assert labels[0].endswith("photo1.png, face 0: score 0.30, 100 px, expected error 7.0 px")
    assert texts(page, "#count") == ["All 4 faces shown"]
    assert page.run("document.querySelector('h1').textContent") == HOSTILE
    assert texts(page, "#errors summary") == ["1 photo with an error"]
    assert texts(page, "#errors li")[0].endswith(f"broken{HOSTILE}: cannot open {HOSTILE}")
    assert page.run("document.querySelectorAll('img').length") == 0  # a name made no element
    assert page.run("document.title") == HOSTILE


def test_every_field_and_button_has_a_name(page):
    page.click(".card button")
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "searchbox", "spinbutton", "combobox", "checkbox", "img", "image", "dialog")
    named = {}
    for node in tree:
        role = node.get("role", {}).get("value")
        if role in roles and not node["ignored"]:
            assert node["name"]["value"].strip(), node
            named[role] = named.get(role, 0) + 1
    assert named["dialog"] == 1 and named["button"] >= 6
    assert named.get("img", 0) + named.get("image", 0) >= 1
    page.press("Escape")
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    found = {n["role"]["value"] for n in tree if not n["ignored"] and n.get("name", {}).get("value")}
    assert {"searchbox", "spinbutton", "combobox", "checkbox", "button", "list"} <= found


@pytest.mark.parametrize(
    ("field", "value", "scores"),
    [
        ("measure-max", "0.5", ["0.30", "0.30"]),
        ("measure-min", "0.7", ["0.90"]),
        ("size-max", "60", ["0.90"]),
        ("size-min", "60", ["0.30", "0.30", "0.60"]),
        ("name", "ONERROR", ["0.60"]),
        ("name", "nothing like it", []),
        ("order", "surest first", ["0.90", "0.60", "0.30", "0.30"]),
        ("order", "by file", ["0.90", "0.30", "0.30", "0.60"]),
        ("order", "smallest first", ["0.90", "0.30", "0.30", "0.60"]),
        ("order", "largest expected error first", ["0.30", "0.30", "0.60", "0.90"]),
    ],
)
def test_faces_are_filtered_and_ordered(page, field, value, scores):
    set_field(page, field, value)
    assert texts(page, ".card strong") == [f"score {score}" for score in scores]
    shown = "All 4 faces shown" if len(scores) == 4 else f"{len(scores)} of 4 faces shown"
    assert texts(page, "#count") == [shown]
    page.click("button[type=reset]")
    time.sleep(0.3)
    assert len(texts(page, ".card")) == 4


def test_a_crop_has_its_landmarks_as_vectors(page):
    page.wait("document.querySelectorAll('.card circle').length === 4 * 68")
    assert page.run("document.querySelectorAll('.card image').length") == 4
    assert page.run("document.querySelectorAll('.card polyline').length") == 4 * len(IBUG_68.groups)
    assert page.run("document.querySelector('.card').querySelectorAll('circle')[17].cx.baseVal.value") == (
        pytest.approx(float(faces(0.3).landmarks[0, 17, 0]), abs=0.01)
    )
    page.press("p")
    assert page.run("getComputedStyle(document.querySelector('.point')).display") == "none"
    page.press("l")
    assert page.run("getComputedStyle(document.querySelector('.card polyline')).display") == "none"
    page.press("p")
    assert page.run("getComputedStyle(document.querySelector('.point')).display") != "none"


def test_the_whole_photo_opens_by_keys_and_every_face_of_it_is_there(page):
    page.press("ArrowRight")
    page.press("ArrowRight")
    page.press("Enter")
    assert page.run("document.getElementById('photo').open")
    assert texts(page, "#photo-name")[0].endswith("photo1.png, face 1")
    assert page.run("document.querySelectorAll('#stage circle').length") == 2 * 68
    assert page.run("document.querySelectorAll('#stage .other').length") == 1
    assert page.run("document.querySelector('#stage svg').getAttribute('viewBox')") == "-0.5 -0.5 400 300"
    page.press("+")
    view = page.run("document.querySelector('#stage svg').getAttribute('viewBox')").split()
    assert float(view[2]) == pytest.approx(400 / 1.5)
    page.press("f")
    page.press("f")
    assert page.run("document.querySelector('#stage svg').getAttribute('viewBox')") != "-0.5 -0.5 400 300"
    page.press("ArrowRight")
    assert texts(page, "#photo-facts") == ["score 0.60 · 100 px · expected error 4.0 px"]
    page.click("#table summary")
    page.wait("document.querySelectorAll('#table tr').length === 69")
    assert texts(page, "#table tr:nth-child(38) td")[1] == IBUG_68.names[36].replace("_", " ")
    page.click("#table summary")
    page.press("Escape")
    assert not page.run("document.getElementById('photo').open")
    page.wait("document.activeElement.ariaLabel?.includes('score 0.60')")  # where one was


def test_landmarks_are_named_under_the_pointer_and_by_keys(page):
    page.wait("document.querySelectorAll('.card circle').length === 4 * 68")
    x, y = page.run(
        "(() => { const b = document.querySelectorAll('.card circle')[36].getBoundingClientRect();"
        "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
    )
    page.point(x, y)
    name = IBUG_68.names[36].replace("_", " ")
    assert texts(page, "#tip") == [f"36 {name} · score 0.30 · expected error 7.0 px"]
    page.point(5, 5)
    assert page.run("document.getElementById('tip').hidden")
    page.click(".card button")
    page.press(".")
    page.press(".")
    assert texts(page, "#tip")[0].startswith(f"1 {IBUG_68.names[1].replace('_', ' ')} · ")
    assert page.run("document.querySelectorAll('.chosen').length") == 1
    page.press("Escape")


def test_it_follows_the_colours_of_the_system_and_fits_a_phone(page, tmp_path):
    def brightness():
        picture = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        return float(picture[: picture.shape[0] // 5].mean())

    light = brightness()
    page.dark()
    assert brightness() < 60 < 200 < light
    page.click("#theme")
    assert brightness() > 200
    page.resize(375, 720, mobile=True)
    assert page.run("document.documentElement.scrollWidth") == 375
    assert (
        page.run("getComputedStyle(document.getElementById('faces')).gridTemplateColumns.split(' ').length")
        == 2
    )
    page.click(".card button")
    assert page.run("document.getElementById('photo').getBoundingClientRect().width") <= 375
    page.press("Escape")


def test_thousands_of_faces_are_drawn_only_where_they_are_seen(page, folder):
    photo = folder / "photo0.png"
    write_report([(photo, faces(0.5, count=2000))], folder / "many.html", max_size=0)
    start = time.monotonic()
    page.open(folder / "many.html")
    assert time.monotonic() - start < 30
    assert page.run("document.querySelectorAll('.card').length") <= 400
    page.press("End")
    page.wait("document.querySelectorAll('.card').length === 2000")
    page.wait("document.activeElement.closest('.card').querySelectorAll('circle').length === 68")
    assert page.run("document.querySelectorAll('.card circle').length") < 100 * 68


def test_an_evaluation_shows_both_kinds_of_points_and_the_worst_first(page, folder):
    from face_landmarks.benchmarks.evaluation import Evaluation

    truth = np.concatenate([faces(0.5).landmarks] * 3)
    predicted = truth + np.array([1, 5, np.nan], np.float32)[:, None, None]
    photos = tuple(folder / f"photo{n}.png" for n in (0, 1, 1))
    evaluation = Evaluation(photos, truth, predicted, IBUG_68, "box", "detector")
    write_evaluation_report(evaluation, folder / "worst.html")
    page.open(folder / "worst.html")
    nme = [f"NME {error:.2f} %" for error in sorted(evaluation.errors[:2], reverse=True)]
    assert texts(page, ".card strong") == ["not found", *nme]
    page.wait("document.querySelectorAll('.card .truth').length === 3 * 68")
    assert page.run("document.querySelectorAll('.card .point').length") == 2 * 68
    assert page.run("document.querySelectorAll('.card .shift').length") == 2 * 68
    page.press("t")
    assert page.run("getComputedStyle(document.querySelector('.truth')).display") == "none"
    set_field(page, "measure-max", "100")
    assert texts(page, ".card strong") == nme


def test_a_photo_that_has_moved_is_said_and_its_crop_shown(page, folder):
    photo = folder / "moving.png"
    photo.write_bytes((folder / "photo0.png").read_bytes())
    write_report([(photo, faces(0.5))], folder / "moved.html", max_size=0)
    photo.unlink()
    page.open(folder / "moved.html")
    page.click(".card button")
    page.wait("!document.getElementById('photo-note').hidden")
    assert texts(page, "#photo-note")[0].startswith("The browser cannot show ")
    assert page.run("document.querySelector('#stage image').getAttribute('href')") == "moved_files/0.jpg"
    page.events[:] = [e for e in page.events if e.get("method") != "Log.entryAdded"]  # of the missing file
