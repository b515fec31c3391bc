#!/usr/bin/env python3
"""Makes the data of this example: make_example.py (standard library only; each run writes the same bytes).

The embedding of a text is a stand-in for a model's: each word is a direction of its own in 64 dimensions, the text
their sum. So a prompt is near to the tools in whose descriptions its words stand.
"""

import hashlib
import json
import math
import re
import struct
from pathlib import Path

PROMPTS, COLUMNS = 200, 64

CITIES = ["Oslo", "Lima", "Cairo", "Kyoto", "Quito", "Hanoi", "Tunis"]
PEOPLE = ["Ada", "Boris", "Chloe", "Dmitri", "Emeka", "Farah", "Grace"]
FILES = ["notes.txt", "budget.csv", "plan.md", "photo.png", "log.json", "song.ogg", "draft.tex"]
TOPICS = ["tides", "bees", "volcanoes", "opera", "chess", "glaciers", "mosaics"]
AMOUNTS = ["12", "35", "48", "60", "75", "110", "240"]

# Name, group, argument, description, the argument's values, and what people say. Some ways of saying it use other
# words than the description: there the search fails, or the agent.
TOOLS = [
    ("weather_now", "weather", "city", "The current weather in a city: temperature, wind and rain", CITIES,
     ["What is the weather in {} right now?", "Tell me the current temperature in {}", "Is there rain or wind in {} today?"]),
    ("weather_forecast", "weather", "city", "The weather forecast of a city for the next seven days", CITIES,
     ["Give me the forecast for {} for next week", "Weather forecast of {} please", "What will the next days be like in {}?"]),
    ("air_quality", "weather", "city", "The air quality in a city: dust, ozone and pollen", CITIES,
     ["How is the air quality in {}?", "Is there much pollen in {}", "Can I go jogging in {} with asthma?"]),
    ("flight_search", "travel", "city", "Search flights to a city, with prices and airlines", CITIES,
     ["Search flights to {}", "Which airlines have flights to {}?", "Show me prices of airlines to {}"]),
    ("train_search", "travel", "city", "Search trains to a city, with departure times and platforms", CITIES,
     ["Search trains to {}", "When is the next departure of trains to {}?", "From which platform do trains to {} leave?"]),
    ("hotel_book", "travel", "city", "Book a hotel room in a city", CITIES,
     ["Book a hotel in {}", "Reserve a hotel room in {}", "I need a room in {}"]),
    ("route_plan", "travel", "city", "Plan the shortest route by car to a city", CITIES,
     ["Plan a route by car to {}", "What is the shortest route to {}?", "How do I get to {} by car?"]),
    ("city_time", "travel", "city", "The local time and time zone of a city", CITIES,
     ["What is the local time in {}?", "Which time zone is {} in?", "Is it late in {} already?"]),
    ("mail_send", "people", "person", "Send an email message to a person", PEOPLE,
     ["Send an email to {}", "Send {} a message that I am late", "Write an email to {} that we won"]),
    ("mail_search", "people", "person", "Search the email inbox for messages from a person", PEOPLE,
     ["Search my inbox for messages from {}", "Find the email from {}", "What did {} want from me?"]),
    ("call_start", "people", "person", "Start a phone call with a person", PEOPLE,
     ["Start a phone call with {}", "Call {} on the phone", "I have to speak to {}"]),
    ("contact_find", "people", "person", "Find the address and phone number of a person", PEOPLE,
     ["Find the phone number of {}", "What is the address of {}?", "Find out where {} lives, I need the address"]),
    ("meeting_plan", "people", "person", "Put a meeting with a person into the calendar", PEOPLE,
     ["Put a meeting with {} into my calendar", "Plan a meeting with {}", "Let me see {} on Friday"]),
    ("birthday_find", "people", "person", "Find the birthday of a person", PEOPLE,
     ["When is the birthday of {}?", "Find the birthday of {}", "How old is {}?"]),
    ("file_read", "files", "file", "Read a file and show its content", FILES,
     ["Read the file {}", "Show the content of {}", "Let me read {}"]),
    ("file_delete", "files", "file", "Delete a file for good", FILES,
     ["Delete the file {}", "Delete {} for good", "Get rid of {}"]),
    ("file_rename", "files", "file", "Rename a file", FILES,
     ["Rename the file {}", "Rename {} to old", "Rename {} to something better"]),
    ("file_share", "files", "file", "Share a file by a public link", FILES,
     ["Share the file {}", "Make a public link of {}", "Let others have {}"]),
    ("file_compress", "files", "file", "Compress a file into a zip archive", FILES,
     ["Compress the file {}", "Put {} into a zip archive", "Zip {} into an archive"]),
    ("file_convert", "files", "file", "Convert a file to another format such as pdf", FILES,
     ["Convert the file {} to pdf", "Convert {} to another format", "I need {} on paper"]),
    ("web_search", "knowledge", "topic", "Search the web for pages about a topic", TOPICS,
     ["Search the web for {}", "Find web pages about {}", "Look for {} on the web"]),
    ("encyclopedia", "knowledge", "topic", "Look a topic up in the encyclopedia", TOPICS,
     ["Look up {} in the encyclopedia", "What does the encyclopedia say about {}?", "Explain {} to me"]),
    ("book_find", "knowledge", "topic", "Find books about a topic in the library", TOPICS,
     ["Find books about {}", "Has the library books about {}?", "Which books of the library are about {}?"]),
    ("course_find", "knowledge", "topic", "Find an online course about a topic", TOPICS,
     ["Find a course about {}", "Is there an online course about {}?", "I want an online course about {}"]),
    ("news_read", "knowledge", "topic", "Read the latest news about a topic", TOPICS,
     ["Read me the latest news about {}", "News about {} please", "What happened to the {} today?"]),
    ("currency_convert", "numbers", "amount", "Convert an amount of money from dollars to euros", AMOUNTS,
     ["Convert {} dollars to euros", "How many euros are {} dollars?", "What is {} dollars worth in Paris?"]),
    ("unit_convert", "numbers", "amount", "Convert a length from miles to kilometres", AMOUNTS,
     ["Convert {} miles to kilometres", "How many kilometres are {} miles?", "Say {} miles in kilometres"]),
    ("timer_set", "numbers", "amount", "Set a timer for some minutes", AMOUNTS,
     ["Set a timer for {} minutes", "Timer, {} minutes", "Tell me when {} minutes are over"]),
    ("tip_compute", "numbers", "amount", "Compute the tip of a restaurant bill", AMOUNTS,
     ["Compute the tip for a bill of {}", "What tip for a restaurant bill of {}?", "The waiter was nice, it was {} euros"]),
    ("loan_compute", "numbers", "amount", "Compute the monthly rate of a loan", AMOUNTS,
     ["Compute the monthly rate of a loan of {}", "A loan of {} thousand: what rate?", "Can I borrow {} thousand?"]),
]

COMMON = set("a an and are by can do does for from give have how i in into is it its let me much my not of on or please "
             "some such the there to was we what when where which will with you your".split())


def words(text):
    """The words that mean something, without a plural's s."""
    found = re.findall("[a-z]+", text.lower())
    return [word[:-1] if word.endswith("s") and len(word) > 3 else word for word in found if word not in COMMON]


def direction(word):
    """A word's place in every dimension: numbers that look random, and are the same everywhere."""
    data = b"".join(hashlib.sha256(f"{word} {n}".encode()).digest() for n in range(COLUMNS * 2 // 32))
    return [number / 32768 for number in struct.unpack(f"<{COLUMNS}h", data)]


def embedding(text):
    sums = [math.fsum(column) for column in zip(*map(direction, words(text)))]
    length = math.sqrt(math.fsum(number * number for number in sums))
    return [number / length for number in sums]


def write_matrix(path, rows):
    """A float32 .npy file, as numpy writes it."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(rows)}, {COLUMNS}), }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    numbers = b"".join(struct.pack(f"<{COLUMNS}f", *row) for row in rows)
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + numbers)


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def main():
    here = Path(__file__).parent
    tools = [
        {"name": name, "group": group, "argument": argument, "description": description}
        for name, group, argument, description, _, _ in TOOLS
    ]
    prompts = []
    for number in range(PROMPTS):
        name, _, _, _, values, sayings = TOOLS[number % len(TOOLS)]
        turn = number // len(TOOLS)
        text = sayings[turn % len(sayings)].format(values[turn % len(values)])
        prompts.append({"id": f"p{number:03}", "text": text, "expects": name})
    write_jsonl(here / "tools.jsonl", tools)
    write_jsonl(here / "prompts.jsonl", prompts)
    write_matrix(here / "tools.npy", [embedding(f"{t['name'].replace('_', ' ')} {t['description']}") for t in tools])
    write_matrix(here / "prompts.npy", [embedding(prompt["text"]) for prompt in prompts])


if __name__ == "__main__":
    main()
