"""What a user said, in our items and in Pydantic AI's parts. JSON in, JSON out: no object of the framework."""

from dalsegno.core import json
from dalsegno.core.item import text_of
from dalsegno.core.json import Json, JsonObject

EPOCH = "1970-01-01T00:00:00Z"
"""When something was said that no provider is told the time of: the same on every replica."""


def user_part(item: JsonObject) -> JsonObject:
    """A message of the user, or one that instructs the model, as a request's part."""
    if item.get("role") in ("system", "developer"):
        return {"part_kind": "system-prompt", "content": text_of(item), "timestamp": EPOCH}
    return {"part_kind": "user-prompt", "content": user_content(item), "timestamp": EPOCH}


def user_content(item: JsonObject) -> Json:
    """The content of a user's message: its text, or a list of texts and files."""
    content = item.get("content")
    if not isinstance(content, list):
        return text_of(item)
    found = [_content(part) for part in content if isinstance(part, dict)]
    return found[0] if len(found) == 1 and isinstance(found[0], str) else found


def _content(part: JsonObject) -> Json:
    match part:
        case {"text": str(text)}:
            return text
        case {"type": "input_image", "image_url": str(url)} | {"type": "input_image", "image_url": {"url": str(url)}}:
            return _file(url, "image-url", "image/png")
        case {"type": "input_file", "file_url": str(url)} | {"type": "input_file", "file_data": str(url)}:
            return _file(url, "document-url", "application/octet-stream")
        case {"type": "input_audio", "input_audio": {"data": str(data), "format": str(kind)}}:
            return {"kind": "binary", "data": data, "media_type": f"audio/{kind}"}
        case _:
            return json.dumps(part).decode()


def _file(url: str, kind: str, media_type: str) -> JsonObject:
    """A file by its address, or the bytes that a `data:` address carries (or that stand there bare)."""
    if url.startswith(("http://", "https://")):
        return {"kind": kind, "url": url}
    if url.startswith("data:"):
        head, _, data = url[len("data:") :].partition(",")
        return {"kind": "binary", "data": data, "media_type": head.partition(";")[0] or media_type}
    return {"kind": "binary", "data": url, "media_type": media_type}
