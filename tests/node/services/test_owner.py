import base64
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from node.services.owner import FILE_NAME, OwnerTokenDamaged, ensure_owner_token, read_owner_token


def random_text(size_bytes: Any) -> Any:
    return base64.urlsafe_b64encode(os.urandom(size_bytes)).rstrip(b"=").decode()


def test_it_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        token = ensure_owner_token(tmp_path, random_text)
    finally:
        os.umask(old)
    assert len(base64.urlsafe_b64decode(token + "=")) == 32
    assert ensure_owner_token(tmp_path, random_text) == token == read_owner_token(tmp_path)
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_there_is_none_before_the_first_start(tmp_path: Path) -> None:
    assert read_owner_token(tmp_path) is None


def test_a_file_others_could_read_is_closed(tmp_path: Path) -> None:
    token = ensure_owner_token(tmp_path, random_text)
    (tmp_path / FILE_NAME).chmod(0o644)
    assert read_owner_token(tmp_path) == token
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"\n", b"short", b"x" * 300, b"\xff" * 43, b"a b" + b"c" * 40])
def test_a_file_that_holds_no_token_is_never_used(tmp_path: Path, content: Any) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(OwnerTokenDamaged, match="delete it"):
        ensure_owner_token(tmp_path, random_text)
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_a_link_planted_in_its_place_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(random_text(32))
    (tmp_path / FILE_NAME).symlink_to(elsewhere)
    with pytest.raises(OwnerTokenDamaged):
        ensure_owner_token(tmp_path, random_text)
    (tmp_path / FILE_NAME).unlink()
    os.mkfifo(tmp_path / FILE_NAME)
    with pytest.raises(OwnerTokenDamaged):
        ensure_owner_token(tmp_path, random_text)


def test_a_draft_left_by_a_start_that_was_cut_short_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".{FILE_NAME}.new").write_text("half")
    assert ensure_owner_token(tmp_path, random_text) == read_owner_token(tmp_path)
