"""What a run leaves in its folder, and what a failed one does not."""

from pathlib import Path

import pytest
import torch

from wys.apps.results import check_writable, result_folder, sheet
from wys.errors import WysError
from wys.relevance import RelevanceMap, RelevanceSettings


def test_a_folder_is_filled_at_once(tmp_path: Path) -> None:
    out = tmp_path / "new" / "deep" / "out"
    with result_folder(out) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "x.txt").write_text("x")
        assert [path for path in out.iterdir() if path != folder] == []
    assert [path.relative_to(out).as_posix() for path in out.rglob("*.txt")] == ["sub/x.txt"]


def test_a_failure_leaves_no_folder_that_was_not_there(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    for out in (tmp_path / "new" / "deep" / "out", tmp_path / "kept" / "out"):
        with pytest.raises(RuntimeError), result_folder(out) as folder:
            (folder / "x.txt").write_text("x")
            raise RuntimeError
    assert list(tmp_path.rglob("*")) == [tmp_path / "kept"]


def test_a_file_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "x.json")
    check_writable(Path("/dev/null"))
    with pytest.raises(WysError, match="folder of that name"):
        check_writable(tmp_path)


@pytest.mark.parametrize("size", [(1, 1), (40, 60), (600, 900), (3, 900)])
def test_a_sheet_is_as_large_for_every_image(size: tuple[int, int]) -> None:
    original, edited = torch.zeros(3, *size), torch.ones(3, *size)
    values = torch.rand(1, 1, 4, 6)
    made = RelevanceMap(values, values, None, ("make it red",), size, RelevanceSettings())
    region = torch.zeros(1, *size, dtype=torch.bool)
    # The edit of one pixel is seen, however far the image is shrunk.
    region[..., size[0] // 2, size[1] // 2] = True
    with_edit = sheet(original, made, region, edited, "make it red")
    without = sheet(original, made, region, None, "make it red")
    width = max(1, round(size[1] * min(256 / size[0], 4 * 256 / size[1])))
    assert with_edit.shape[-1] - without.shape[-1] == width + 8
    outline = (with_edit[0] > 0.9) & (with_edit[1] < 0.4)
    assert outline.any()
