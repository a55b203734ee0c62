"""Images that a provider refused: which are suspected, and what a path shows in their place."""

from __future__ import annotations

from typing import Any

from nous.ports.model import ContextMessage
from nous.protocol.messages import Block, ImageBlock, Message, TextBlock, ToolCallBlock, ToolResultBlock
from nous.providers.history import repair_history
from nous.store.left_out import ONE_LEFT_OUT
from nous.store.session_path import Path, PathView

IMAGE = ImageBlock("image/png", "AAAA")


def message(message_id: str, role: Any, text: str, *blocks: Block, **fields: Any) -> ContextMessage:
    return ContextMessage(Message(id=message_id, role=role, text=text, created_at="", blocks=blocks, **fields))


def result(message_id: str, call_id: str, text: str, *images: ImageBlock) -> ContextMessage:
    return message(message_id, "tool_result", text, ToolResultBlock(call_id, "read", text, False), *images)


def conversation() -> Path:
    call = ToolCallBlock("c1", "read", "{}")
    return Path(
        [
            message("u1", "user", "look", TextBlock("look"), IMAGE, IMAGE),
            message("a1", "assistant", "I see"),
            message("u2", "user", "and in the file?"),
            message("a2", "assistant", "", call),
            result("r1", "c1", "[image/png]", IMAGE),
        ],
        "",
    )


def images_in(messages: list[ContextMessage]) -> list[str]:
    return [m.message.id for m in messages for block in m.message.blocks if isinstance(block, ImageBlock)]


def test_images_without_an_answer_are_suspected_first_then_all_then_none() -> None:
    view = PathView(conversation())
    assert view.suspect_images() == ("r1",)
    assert view.suspect_images(["r1"]) == ("u1",)
    assert view.suspect_images(["r1", "u1"]) == ()


def test_a_text_stands_in_place_of_what_is_left_out() -> None:
    view = PathView(conversation())
    shown = list(view.shown(["u1", "r1"]))
    assert images_in(shown) == []
    assert shown[0].message.text == "look\n[2 images stood here. They were left out: the provider refused an image.]"
    assert shown[0].message.blocks == (TextBlock(shown[0].message.text),)
    [told] = shown[4].message.blocks
    assert isinstance(told, ToolResultBlock)
    assert (told.tool_call_id, told.text) == ("c1", f"[image/png]\n{ONE_LEFT_OUT}")
    assert images_in(list(view)) == ["u1", "u1", "r1"]
    assert view.shown() is view


def test_each_result_of_a_message_keeps_its_place() -> None:
    blocks = (ToolResultBlock("c1", "read", "one", False), IMAGE, ToolResultBlock("c2", "ls", "two", False))
    path = Path([message("r1", "tool_result", "one\ntwo", *blocks)], "")
    [shown] = PathView(path).shown(["r1"])
    assert shown.message.blocks == (ToolResultBlock("c1", "read", f"one\n{ONE_LEFT_OUT}", False), blocks[2])


def test_an_answer_names_what_stays_left_out_after_it_and_nothing_before() -> None:
    path = conversation()
    before = PathView(path)
    path.messages.append(message("a3", "assistant", "no image", images_left_out=("r1",)))
    path.messages.append(message("u3", "user", "this one?", TextBlock("this one?"), IMAGE))
    view = PathView(path)
    assert images_in(list(view.shown())) == ["u1", "u1", "u3"]
    assert view.suspect_images() == ("u3",)
    assert view.suspect_images(["u3"]) == ("u1",)
    assert before.shown() is before
    assert view.has_images
    assert not PathView(Path([message("a", "assistant", "x")], "")).has_images


def test_a_path_whose_images_are_all_left_out_holds_none() -> None:
    path = Path([message("u1", "user", "look", IMAGE), message("a1", "assistant", "ok", images_left_out=("u1",))], "")
    assert not PathView(path).has_images


def test_adapters_find_nothing_of_an_earlier_request_behind_what_is_shown() -> None:
    """What adapters remember at a message is of one list; the same messages without an image are another one."""
    path = conversation()
    repair_history(PathView(path))
    path.messages.append(message("u3", "user", "go on"))
    assert images_in(repair_history(PathView(path)).after(0)) == ["u1", "u1", "r1"]
    assert images_in(repair_history(PathView(path).shown(["u1"])).after(0)) == ["r1"]
    path.messages.append(message("a4", "assistant", "yes", images_left_out=("r1",)))
    path.messages.append(message("u4", "user", "go on"))
    assert images_in(repair_history(PathView(path).shown()).after(0)) == ["u1", "u1"]
    assert images_in(repair_history(PathView(path).shown(["u1"])).after(0)) == []


def test_what_is_shown_is_kept_and_grows_with_its_path() -> None:
    path = conversation()
    path.messages.append(message("a3", "assistant", "no image", images_left_out=("r1",)))
    short = PathView(path)
    first = list(short.shown())
    path.messages.append(message("u3", "user", "go on"))
    second = list(PathView(path).shown())
    assert all(one is two for one, two in zip(first, second, strict=False))
    assert [len(first), len(second), len(short.shown())] == [6, 7, 6]
