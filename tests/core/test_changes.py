"""What changed between two manifests: each part once, old beside new, readable on a narrow terminal."""

from __future__ import annotations

from llmctl.core.changes import Change, changes, part_of, side_by_side
from llmctl.core.pin import Layer

KIND = "application/vnd.ollama.image."


def layer(kind: str, digit: str, size_bytes: int = 10) -> Layer:
    return Layer(kind if "/" in kind else KIND + kind, "sha256:" + digit * 64, size_bytes)


CONFIG = layer("application/vnd.docker.container.image.v1+json", "c")
OLD = (layer("model", "1", 5_200_000_000), layer("template", "2"), layer("license", "3"), layer("params", "4"))


def test_only_what_differs_is_told_the_weights_first() -> None:
    new = (layer("license", "3"), layer("params", "5"), layer("template", "6"), layer("model", "7"))
    found = changes(OLD, CONFIG, new, layer("config", "d"))
    assert [change.part for change in found] == ["weights", "template", "parameters", "config"]
    assert found[0] == Change("weights", OLD[0], new[3])
    assert changes(OLD, CONFIG, reversed(OLD), CONFIG) == ()


def test_a_part_that_came_or_went_has_one_side() -> None:
    found = changes(OLD, CONFIG, (*OLD[:3], layer("system", "8")), CONFIG)
    assert found == (Change("parameters", OLD[3], None), Change("system", None, layer("system", "8")))


def test_of_two_licences_the_one_that_stays_is_left_out() -> None:
    first, second, third = layer("license", "3"), layer("license", "8"), layer("license", "9")
    assert changes((first, second), None, (third, first), None) == (Change("licence", second, third),)


def test_what_has_no_name_of_ours_keeps_its_own() -> None:
    assert part_of(layer("draft", "1")) == "draft"
    assert part_of(layer("strange", "1")) == "strange"
    assert len(part_of(layer("x" * 500, "1"))) <= 20


def test_old_and_new_stand_side_by_side_in_forty_columns() -> None:
    new = (layer("model", "7", 5_300_000_000), layer("template", "2"), layer("license", "3"))
    lines = side_by_side("sha256:" + "a" * 64, "sha256:" + "b" * 64, changes(OLD, CONFIG, new, CONFIG))
    assert all(len(line) <= 40 for line in lines)
    assert lines == [
        "            pinned        now",
        "manifest    aaaaaaaaaaaa  bbbbbbbbbbbb",
        "weights     111111111111  777777777777",
        "            5,200 MB      5,300 MB",
        "parameters  444444444444  -",
        "            10 B",
    ]
