#!/usr/bin/env python3
"""A stand-in of an API that costs money: stand_in.py PORT_FILE LOG_FILE (standard library only).

It listens on 127.0.0.1 and writes its port to PORT_FILE. POST /ask takes {"id", "text", "tools": [...]} and, after
about 50 ms, answers which of the tools it would call and with what. The same request has the same answer. One prompt
in twenty is refused the first time, with status 429 and Retry-After, as APIs do that are asked too fast.

LOG_FILE gets a line for each request and for how it ended: `asked`, `answered` or `refused`, the prompt's id, and some
digits of the request's SHA-256. The stand-in ends with whoever has started it: the process STARTED_BY, if that is set.
"""

import asyncio
import hashlib
import json
import os
import re
import sys

THINKING_S = 0.05
REFUSED_ONE_IN = 20
RETRY_AFTER_S = 1


def words(text):
    return set(re.findall("[a-z]{3,}", text.lower()))


def answer(request):
    """The tool that shares most words with the prompt; of equals the one that is offered first."""
    said = words(request["text"])
    shared = [len(said & words(f"{tool['name'].replace('_', ' ')} {tool['description']}")) for tool in request["tools"]]
    tool = request["tools"][shared.index(max(shared))]
    # A name, a file, a number; else the last word.
    found = re.findall(r"\b[a-z]+\.[a-z]+\b|\b\d+\b|(?<=\s)[A-Z][a-z]+\b", request["text"])
    value = found[0] if found else re.findall(r"\w+", request["text"])[-1]
    return {"id": request["id"], "tool": tool["name"], "arguments": {tool["argument"]: value}}


class StandIn:
    def __init__(self, log):
        self.log, self.refused = log, set()

    def note(self, what, request):
        os.write(self.log, f"{what} {request}\n".encode())

    async def serve(self, reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            body = await reader.readexactly(int(length[1]) if length else 0)
            await self.respond(head.split(b" ", 2)[:2], body, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # whoever asked is gone
        finally:
            writer.close()

    async def respond(self, what, body, writer):
        if what != [b"POST", b"/ask"]:
            return await self.send(writer, "404 Not Found", {"error": "there is POST /ask, and nothing else"})
        request = json.loads(body)
        prompt = request["id"]
        name = f"{prompt} {hashlib.sha256(body).hexdigest()[:8]}"
        self.note("asked", name)
        if int(prompt[1:]) % REFUSED_ONE_IN == 0 and prompt not in self.refused:
            self.refused.add(prompt)
            await self.send(writer, f"429 Too Many Requests\r\nRetry-After: {RETRY_AFTER_S}", {"error": "too fast"})
            self.note("refused", name)
            return
        await asyncio.sleep(THINKING_S)
        await self.send(writer, "200 OK", answer(request))
        self.note("answered", name)

    @staticmethod
    async def send(writer, status, value):
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        writer.write(head.encode() + b"\r\n" + body)
        await writer.drain()


async def main(port_file, log_file):
    starter = int(os.environ.get("STARTED_BY") or os.getppid())
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    server = await asyncio.start_server(StandIn(log).serve, "127.0.0.1", 0, backlog=1000)
    with open(port_file + ".part", "w") as file:
        file.write(str(server.sockets[0].getsockname()[1]))
    os.replace(port_file + ".part", port_file)
    async with server:
        while os.getppid() == starter:
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
