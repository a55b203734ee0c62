"""What may be stored as an image: whole ones of known types and sizes, and nothing else."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.tools.image_check import MAX_IMAGE_BYTES, find_image_fault
from tests.support.pictures import GIF, JPEG, WEBP, png, png_chunk

WHOLE = {"png": png(3, 2), "gif": GIF, "jpeg": JPEG, "webp": WEBP}


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_a_whole_image(data: bytes) -> None:
    assert find_image_fault(data) is None


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_no_beginning_of_an_image_is_one(data: bytes) -> None:
    for length in range(len(data)):
        assert find_image_fault(data[:length]) is not None, length


@pytest.mark.parametrize("color", [0, 2, 3, 4, 6])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (8000, 1)])
def test_every_kind_of_png(color: int, size: tuple[int, int]) -> None:
    assert find_image_fault(png(*size, color=color)) is None


def test_an_interlaced_png() -> None:
    # 5x5 pixels in seven passes: 1x1, 1x1, 2x1, 1x2, 3x1, 2x3 and 5x2, each line with its filter byte.
    sizes = [(1, 1), (1, 1), (2, 1), (1, 2), (3, 1), (2, 3), (5, 2)]
    whole = bytes(sum(count * (1 + columns) for columns, count in sizes))
    assert find_image_fault(png(5, 5, interlace=1, data=whole)) is None
    assert find_image_fault(png(5, 5, interlace=1, data=whole + b"x")) == "it is damaged"


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "only image/gif, image/jpeg, image/png, image/webp can be shown"),
        (png(9000, 1), "it has 9000x1 pixels, and no side may have more than 8000"),
        (png(0, 1, data=b""), "it is damaged: it has no pixels"),
        (png(3, 2, data=b"short"), "it is damaged"),
        (png(3, 2, data=bytes(100)), "it is damaged"),
        (png(3, 2, depth=3), "it is damaged"),
        (png(3, 2).replace(b"IDAT", b"tEXt"), "it is damaged"),
        (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 0, 0, 0, 0)), "it is damaged"),
        (png(3, 2) + bytes(MAX_IMAGE_BYTES), f"it is longer than {MAX_IMAGE_BYTES} bytes"),
    ],
)
def test_what_no_vendor_takes(data: bytes, fault: str) -> None:
    assert find_image_fault(data) == fault


def test_a_bomb_is_inflated_no_further_than_its_header_says() -> None:
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    assert find_image_fault(png(2, 2, data=bytes(100_000_000)), count) == "it is damaged"
    assert calls < 10


def test_who_asks_can_stop_it() -> None:
    def stop() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        find_image_fault(png(2, 2), stop)


@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_garbage_is_a_fault_and_never_an_exception(name: str, data: st.DataObject) -> None:
    broken = bytearray(WHOLE[name])
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    fault = find_image_fault(bytes(broken))
    assert fault is None or len(fault) < 120
