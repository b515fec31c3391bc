"""What costs money: one question to the API. The key of each `ask` node covers this file and the request, and nothing
else, so that nobody pays again because a check or a report has changed. Standard library only."""

import asyncio
import json
import os
from urllib.parse import urlsplit

import forkyard


async def ask(request):
    """Sends a request and waits for its answer. While it waits, the same process runs others."""
    # Not in the key: where the API is makes no difference to what it says.
    status, headers, body = await post(os.environ["AGENT_API"] + "/ask", json.dumps(request).encode())
    if status == 429:
        raise forkyard.RetryAfter(float(headers.get("retry-after", 1)), "the API says: too fast")
    if status != 200:
        raise RuntimeError(f"the API says {status}: {body[:200].decode(errors='replace')}")
    return {**json.loads(body), "offered": [tool["name"] for tool in request["tools"]], "tokens": request["tokens"]}


async def post(url, body):
    """Status, headers and body of a response."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    try:
        head = f"POST {at.path} HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        response = await reader.read()
    finally:
        writer.close()
    head, separator, body = response.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if not separator or len(body) != int(headers.get("content-length", len(body))):
        raise ConnectionError("the API's answer breaks off")
    return int(status.split()[1]), headers, body
