"""fc2conv scan: files in, score maps, boxes and pictures out."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from onnx_fc2conv import convert
from onnx_fc2conv.files.reading import load
from onnx_fc2conv.scanning.preprocessing import Preprocessing, read_preprocessing
from tests.cli.conftest import Run
from tests.nets import session

Image = pytest.importorskip("PIL.Image")

ROOT = Path(__file__).parents[2]
PIXELS = np.random.default_rng(1).integers(0, 256, (90, 130), dtype=np.uint8)
TILES = ("--memory", "500kB")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(PIXELS).save(path)
    return path


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_an_original_model_is_converted_on_the_fly(
    run: Run, face25: Path, photo: Path, tmp_path: Path
) -> None:
    dense = convert(face25).model
    assert dense is not None
    image = (PIXELS.astype(np.float32) * np.float32(1 / 255))[None, None]
    expected = session(dense)({"image": image})["scores"][0]
    lowest = float(np.sort(expected[1].ravel())[-50])
    out = tmp_path / "out"
    outcome = run("scan", face25, photo, "-o", out, "--class", "1", "--threshold", lowest, *TILES)
    assert outcome.code == 0, outcome.err
    assert "(130×90)" in outcome.out
    assert set(everything(out)) == {
        *("photo.scores.npy", "photo.overlay.png", "boxes.json", "boxes.csv")
    }
    scores = np.load(out / "photo.scores.npy")
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)
    with Image.open(out / "photo.overlay.png") as picture:
        assert picture.size == (520, 360)

    found = json.loads((out / "boxes.json").read_text())
    assert found["images"] == [{"id": 1, "file_name": "photo.png", "width": 130, "height": 90}]
    assert found["categories"] == [{"id": 1, "name": "1"}]
    assert len(found["annotations"]) > 1
    for number, box in enumerate(found["annotations"], 1):
        x, y, width, height = box["bbox"]
        assert (box["id"], box["image_id"], box["category_id"]) == (number, 1, 1)
        assert box["score"] == pytest.approx(scores[1, int(y) // 2, int(x) // 2])
        assert (box["area"], width, height) == (625, 25, 25)
        assert box["score"] >= lowest
    with (out / "boxes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score"]) for row in rows] == [b["score"] for b in found["annotations"]]
    assert set(rows[0]) == {"image", "label", "score", "x", "y", "width", "height", "scale"}


def test_a_converted_model_brings_its_preprocessing(
    run: Run, digits8: Path, photo: Path, tmp_path: Path
) -> None:
    dense, how = tmp_path / "dense.onnx", "scale=1 mean=100 std=50"
    assert run("convert", digits8, dense, "--preprocess", how, "--no-check").code == 0
    assert read_preprocessing(load(dense)) == Preprocessing(scale=1.0, mean=(100.0,), std=(50.0,))
    assert run("scan", dense, photo, "-o", tmp_path / "a").code == 0
    options = ("--scale", "1", "--mean", "100", "--std", "50")
    assert run("scan", digits8, photo, "-o", tmp_path / "b", *options).code == 0
    assert everything(tmp_path / "a") == everything(tmp_path / "b")
    assert run("scan", dense, photo, "-o", tmp_path / "c", "--mean", "0").code == 0
    assert everything(tmp_path / "a") != everything(tmp_path / "c")


def test_scales_formats_and_quiet(run: Run, face25: Path, photo: Path, tmp_path: Path) -> None:
    tifffile, zarr = pytest.importorskip("tifffile"), pytest.importorskip("zarr")
    out = tmp_path / "out"
    options = ("--scales", "1,0.5", "--maps", "tiff", "--maps", "zarr", "-q")
    outcome = run("scan", face25, photo, "-o", out, *options)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert np.load(out / "photo.scores.npy").shape == (2, 33, 53)
    small = np.load(out / "photo.scores@0.5.npy")
    assert small.shape == (2, 11, 21)
    np.testing.assert_array_equal(tifffile.imread(out / "photo.scores@0.5.tiff"), small)
    np.testing.assert_array_equal(zarr.open_array(out / "photo.scores@0.5.zarr")[...], small)


def test_a_bad_image_is_a_line_and_the_others_are_scanned(
    run: Run, face25: Path, photo: Path, tmp_path: Path
) -> None:
    tiny, text, out = tmp_path / "tiny.npy", tmp_path / "text.png", tmp_path / "out"
    np.save(tiny, np.zeros((20, 30), np.uint8))
    text.write_text("no image")
    outcome = run("scan", face25, text, tiny, photo, "-o", out)
    assert outcome.code == 2
    assert len(outcome.error_lines) == 2
    assert "text.png is no image" in outcome.error_lines[0]
    assert "tiny.npy: an image of 20×30 pixels is smaller" in outcome.error_lines[1]
    names = set(everything(out))
    assert names == {"photo.scores.npy", "photo.overlay.png", "boxes.json", "boxes.csv"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--threshold", "x"), "--threshold 'x' is not written like"),
        (("--memory", "much"), "--memory 'much' is not written like"),
        (("--scales", "1,1"), "different numbers"),
        (("--class", "7"), "there is no class 7"),
        (("--scale", "1,2"), "it is one number"),
        (("--mean", "1,2"), "mean has 2 numbers"),
        (("--output", "x"), "no map 'x', but: scores"),
        (("--memory", "1kB"), "smallest tile that gives a cell"),
    ],
)
def test_bad_usage_is_one_line(
    run: Run, face25: Path, photo: Path, tmp_path: Path, options: tuple[str, ...], reason: str
) -> None:
    outcome = run("scan", face25, photo, "-o", tmp_path / "out", *options)
    assert outcome.code == 2
    assert len(outcome.error_lines) == 1
    assert reason in outcome.err


def test_results_are_not_replaced_unasked(
    run: Run, face25: Path, photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run("scan", face25, photo, "-o", out).code == 0
    before = everything(out)
    for options in ((), ("--resume",)):
        outcome = run("scan", face25, photo, "-o", out, *options)
        assert outcome.code == 2
        assert "exists already; --overwrite replaces it" in outcome.err
    assert run("scan", face25, photo, "-o", out, "--overwrite").code == 0
    assert everything(out) == before


def test_two_images_of_one_name_are_refused(run: Run, face25: Path, tmp_path: Path) -> None:
    outcome = run("scan", face25, "a/x.png", "b/x.jpg", "-o", tmp_path)
    assert outcome.code == 2
    assert "would both be written to x.scores.npy" in outcome.err


def test_folders_and_patterns(
    run: Run, digits8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quoted, as the shells of Windows pass them on."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a[1].png", "c.PNG", ".hidden.png"):
        Image.fromarray(PIXELS[:20, :20]).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    zarr = pytest.importorskip("zarr")
    zarr.save_array(str(tmp_path / "d.zarr"), PIXELS[:20, :20])

    def scanned(*words: str | Path) -> list[str]:
        outcome = run("scan", digits8, *words, "-o", "out", "--overwrite", "--class", "1")
        assert outcome.code == 0, outcome.err
        found = json.loads((tmp_path / "out" / "boxes.json").read_text(encoding="utf-8"))
        return [image["file_name"] for image in found["images"]]

    assert scanned("*.png") == ["a[1].png", "b.png"]
    assert scanned(tmp_path / "[bc].*") == ["b.png", "c.PNG"]
    assert scanned("a[1].png") == ["a[1].png"]
    assert scanned("b.png", "*.png", "./b.png") == ["b.png", "a[1].png"]
    everything_here = ["a[1].png", "b.png", "c.PNG", "d.zarr"]
    assert scanned(".") == scanned(f"{tmp_path}*") == everything_here
    outcome = run("scan", digits8, ".", "-o", ".", "--class", "1", "--maps", "tiff")
    assert outcome.code == 0
    assert scanned(".") == everything_here  # without what lies there now

    for word, reason in (("*.jpg", "no image matches *.jpg"), ("empty", "empty has no images")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        outcome = run("scan", digits8, "b.png", word, "-o", "other")
        assert outcome.code == 2
        assert outcome.error_lines[0].startswith(f"fc2conv: {reason}")
        assert not (tmp_path / "other").exists()


def test_names_that_differ_in_case_where_case_does_not_count(
    run: Run, digits8: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("x/photo.png", "y/PHOTO.png"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(PIXELS[:20, :20]).save(tmp_path / name)
    (out / "PHOTO.journal").symlink_to(out / "photo.journal")  # two names of one file
    outcome = run("scan", digits8, tmp_path / "x", tmp_path / "y", "-o", out, "--class", "1")
    assert outcome.code == 2
    assert "y/PHOTO.png and photo.png would both be written to photo.*" in outcome.err
    assert (out / "photo.scores.npy").exists()


def test_boxes_that_another_program_holds_open(
    run: Run, digits8: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a spreadsheet does on Windows: the scan is not lost."""
    out, replace = tmp_path / "out", os.replace

    def held(source: Path, target: Path) -> None:
        if target == out / "boxes.csv":
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    with monkeypatch.context() as windows:
        windows.setattr(os, "replace", held)
        outcome = run("scan", digits8, photo, "-o", out, "--class", "1")
    assert outcome.code == 2
    assert outcome.error_lines == [f"fc2conv: cannot write {out / 'boxes.csv'}: Permission denied"]
    assert not list(out.glob(".*"))
    assert run("scan", digits8, photo, "-o", out, "--class", "1", "--resume").code == 0
    assert {"boxes.csv", "boxes.json"} < set(everything(out))
    assert b"\r" not in (out / "boxes.csv").read_bytes()


def test_an_image_whose_name_is_no_text(run: Run, digits8: Path, tmp_path: Path) -> None:
    image, out = tmp_path / os.fsdecode(b"\xfc.npy"), tmp_path / "out"
    np.save(image, PIXELS[:20, :20])
    assert run("scan", digits8, image, "-o", out, "--class", "1", "--threshold", "-99").code == 0
    assert "\\udcfc.npy,1," in (out / "boxes.csv").read_text(encoding="utf-8")
    found = json.loads((out / "boxes.json").read_text(encoding="utf-8"))
    assert found["images"][0]["file_name"] == image.name


SCAN = """
import sys
import onnxruntime
from onnx_fc2conv.cli import main
from tests.nets import OneThread

onnxruntime.SessionOptions = OneThread
main(["scan", *sys.argv[1:]])
"""
"""The program with one thread, as in the tests: the bytes of a map depend on how many there are."""


@pytest.mark.parametrize("lines", [1, 4, 9])
def test_a_scan_that_was_killed_goes_on_to_the_same_bytes(
    run: Run, face25: Path, photo: Path, tmp_path: Path, lines: int
) -> None:
    options = ("--scales", "1,0.5", "--threshold", "0.2", "--memory", "200kB")
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run("scan", face25, photo, "-o", whole, *options).code == 0
    command = [sys.executable, "-c", SCAN, face25, photo, "-o", out, *options]
    child = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL)
    journal = out / "photo.journal"
    while child.poll() is None and not (
        journal.exists() and journal.read_bytes().count(b"\n") >= lines
    ):
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it ended before it was killed: take smaller tiles"
    done = journal.read_bytes().count(b"\n") - 1
    assert done >= lines - 1
    with journal.open("ab") as file:
        file.write(b"[0,")  # as if the power had failed

    refused = run("scan", face25, photo, "-o", out, *options)
    assert refused.code == 2
    assert "has an interrupted scan of photo: --resume goes on with it" in refused.err
    other = run("scan", face25, photo, "-o", out, *options, "--mean", "0.1", "--resume")
    assert other.code == 2
    assert "the interrupted scan had another preprocessing" in other.err
    assert run("scan", face25, photo, "-o", out, *options, "--resume").code == 0
    assert everything(out) == everything(whole)


def test_tiles_that_are_done_are_not_computed_again(
    run: Run, face25: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    from onnx_fc2conv.scanning.runner import Scanner  # noqa: PLC0415

    plain, count = Scanner._cells, [0]

    def counted(self: Scanner, *arguments: object, **named: object) -> object:
        count[0] += 1
        if count[0] == 5:
            raise KeyboardInterrupt
        return plain(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Scanner, "_cells", counted)
    stopped = run("scan", face25, photo, "-o", out, "--memory", "200kB")
    assert stopped.code == 130
    assert "the same command with --resume goes on from here" in stopped.err
    done = len((out / "photo.journal").read_text().splitlines()) - 1
    assert done == 4
    assert run("scan", face25, photo, "-o", out, "--memory", "200kB", "--resume").code == 0
    total = count[0]
    again = tmp_path / "again"
    assert run("scan", face25, photo, "-o", again, "--memory", "200kB").code == 0
    assert total - 5 == (count[0] - total) - done


def test_a_model_without_a_map_is_refused_with_a_hint(
    run: Run, face25: Path, photo: Path, tmp_path: Path
) -> None:
    one_vector = tmp_path / "mean.onnx"
    assert run(face25, one_vector, "--reduce", "mean").code == 0
    outcome = run("scan", one_vector, photo, "-o", tmp_path / "out")
    assert outcome.code == 3
    assert "[no-map]" in outcome.err
    assert "--pool window" in outcome.err
    assert not list((tmp_path / "out").glob("*"))


def test_what_cannot_be_scanned_leaves_no_folder(run: Run, face25: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("scan", face25, tmp_path / "none.png", "-o", out).code == 2
    assert not out.exists()
    file = tmp_path / "file"
    file.touch()
    result = run("scan", face25, tmp_path / "none.png", "-o", file / "out")
    assert (result.code, result.error_lines) == (
        2,
        [f"fc2conv: cannot write {file / 'out'}: {file} is no folder to write to"],
    )
