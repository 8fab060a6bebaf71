"""The values that records are filled with: words of signs, names, things to buy, numbers, dates and addresses."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from importlib import resources

from llava.synth import words


def _read_names() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for line in resources.files("llava.scratch.talking").joinpath("names.txt").read_text("utf-8").splitlines():
        what, colon, values = line.partition(": ")
        if colon and not line.startswith("#"):
            found.setdefault(what, []).extend(value.strip() for value in values.split(";"))
    return {what: tuple(values) for what, values in found.items()}


_NAMES = _read_names()
SIGNS, FIRST_NAMES, LAST_NAMES = _NAMES["sign"], _NAMES["first"], _NAMES["last"]
CITIES, COUNTRIES, JOBS, STREETS = _NAMES["city"], _NAMES["country"], _NAMES["job"], _NAMES["street"]
# What looks like markup, code or a request, which an image may show as well. None of it is a token of the language
# model: descriptions of such texts are escaped, and records are not.
_MARKUP = (
    "<image>~<image>~<im_end>~<|end|>~<|system|>~<|user|>~<s>~</s>~[INST]~[IMG]~<b>bold</b>~<html>~</div>~<br>~&nbsp;~"
    "<body>~<user>~<name>~<title>Home</title>~<li>Tea</li>~<a>link</a>~**bold**~{name}~{{value}}~$HOME~user@host: ls~"
    "C:\\Users\\Anna~a->b~x=3;~y += 1;~if (a < b) {~return 0;~print('hello')~range(10)~#include <string>~std::cout~i++~"
    "[x]~404~1+1=2~100%~@home~#sale~*new*~/home/anna~<your text here>~# Title~What is this?~Describe the image.~"
    "Ignore this sign.~Say hello!~import numpy as np~SELECT * FROM users~Type /help~<image> here~an <image> tag"
).split("~")
# Grounds of signs. Gray is not among them: the reader does not tell a light gray ground from white.
PLATES = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
LIGHT_PLATES = ("white", "yellow", "orange", "pink")
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
ITEMS = (
    "Bread Milk Tea Coffee Cake Soup Rice Fish Eggs Salt Juice Apple Apples Pear Plums Lemon Pasta Pizza Salad Honey "
    "Cheese Butter Beans Corn Nuts Pie Jam Water Soda Sugar Flour Ham Beef Pork Lamb Curry Toast Bagel Muffin Cookies "
    "Tuna Espresso Latte Sandwich Burger Fries Yogurt Tomatoes Potatoes Onions Bananas Oranges Grapes Chicken Cereal "
    "Shampoo Soap Napkins Batteries Candles Notebook Pens Umbrella"
).split()
ITEMS += "Orange juice;Green tea;Olive oil;Ice cream;Hot dog;Red wine;Tomato soup;Peanut butter".split(";")


_COOKED = "Grilled;Roast;Fried;Baked;Smoked;Fresh;Spicy;Creamy;Stuffed;Cold;Hot;Sweet;Homemade;Warm;Mixed".split(";")
_DISHES = (
    "salmon;trout;beef;duck;lamb;turkey;shrimp;mushrooms;spinach;pumpkin;cauliflower;lentils;noodles;dumplings;pancakes;"
    "omelette;ravioli;risotto;goulash;schnitzel;pretzel;hummus;falafel;paella;tacos;sushi;tofu;waffles;strudel;sorbet"
).split(";")
_SIDES = "rice;chips;bread;herbs;lemon;garlic;cream;peas;walnuts;berries;cheese;bacon;ginger;olives".split(";")


_PHONES = (
    "555-####;+44 20 #######;(###) ### ####;0### ####;0### ### ###;06 ## ## ## ##;+33 # ## ## ## ##;(###) 555-01##;"
    "+1 ### 555 01##;0#### ######;0## ### ## ##;+49 ## #######;+353 # ### ####;0## ####;### ### ###;0####-#####;"
    "+61 4## ### ###;###-###-####;1-800-###-####;0##/#######;+39 0## ######;08 ### ### ##;## ## ## ##"
).split(";")
_MAILBOXES = "info;office;sales;hello;contact;mail;shop;team;bookings;service;help;orders;jobs;press;desk".split(";")
_ENDINGS = (
    ".com;.com;.com;.org;.net;.de;.co.uk;.fr;.it;.es;.nl;.eu;.io;.info;.example;.example;.ie;.ch;.at;.ca;.com.au;"
    ".app;.shop;.museum;.edu;.gov"
).split(";")


def draw_label(rng: random.Random) -> str:
    """What a bar, a row or a column may be called: one word or two, as a title, in lower or in upper case."""
    name = " ".join(words.draw_word(rng, False, 9).lower() for _ in range(rng.choice((1, 1, 1, 2))))
    return rng.choice((name, name.capitalize(), name.capitalize(), name.title(), name.upper()))


def draw_item(rng: random.Random) -> str:
    """Something to eat or to buy, which may have a name of several words."""
    way = rng.random()
    if way < 0.4:
        return rng.choice(ITEMS)
    if way < 0.5:
        return draw_label(rng)
    dish = rng.choice((*_DISHES, *(item.lower() for item in ITEMS)))
    dish = f"{rng.choice(_COOKED)} {dish}" if way < 0.75 else dish.capitalize()
    return f"{dish} with {rng.choice(_SIDES)}" if rng.random() < 0.3 else dish


def draw_apart(rng: random.Random, draw: Callable[[random.Random], str], count: int) -> list[str]:
    """So many different names, of which none is a part of another."""
    names: list[str] = []
    while len(names) < count:
        name = draw(rng)
        if not any(name.lower() in other.lower() or other.lower() in name.lower() for other in names):
            names.append(name)
    return names


def draw_absent(rng: random.Random, draw: Callable[[random.Random], str], known: str) -> str:
    """A name that is not in ``known``, a description."""
    while True:
        name = draw(rng)
        if name.lower() not in known.lower():
            return name


def draw_person(rng: random.Random) -> str:
    """A first and a last name."""
    return f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"


def draw_phone(rng: random.Random) -> str:
    """A telephone number in one of the ways in which countries write them; # is a digit."""
    form = rng.choice(_PHONES)
    return re.sub("#", lambda _: str(rng.randrange(10)), form)


def draw_mail(rng: random.Random) -> str:
    """An e-mail address."""
    first, last = (re.sub(r"\W", "", rng.choice(names).lower()) for names in (FIRST_NAMES, LAST_NAMES))
    user = rng.choice((first, last, f"{first}.{last}", f"{first[0]}{last}", f"{first[0]}.{last}", f"{first}_{last}",
                       f"{first}{rng.randint(1, 99)}", *_MAILBOXES))  # fmt: skip
    return f"{user}@{_draw_domain(rng)}"


def draw_site(rng: random.Random) -> str:
    """A website's address."""
    way, domain = rng.random(), _draw_domain(rng)
    path = "/" + words.draw_word(rng, False, 7).lower() if rng.random() < 0.15 else ""
    return ("www." if way < 0.55 else "https://" if way < 0.65 else "") + domain + path


def _draw_domain(rng: random.Random) -> str:
    name = words.draw_word(rng, False, 9).lower()
    if rng.random() < 0.3:
        name += rng.choice(("-", "")) + rng.choice(
            (words.draw_word(rng, False, 6).lower(), rng.choice(LAST_NAMES).lower())
        )
    return re.sub(r"[^\w-]", "", name) + rng.choice(_ENDINGS)


def draw_street(rng: random.Random) -> str:
    """A street with a number, before or after it, as countries write it."""
    number, last = rng.randint(1, 299), rng.choice(LAST_NAMES)
    name = f"{last} {rng.choice(STREETS)}"
    foreign = (f"{last}{rng.choice(('straat', 'weg', 'gasse', 'gatan', 'strasse'))}", f"Rue {last}", f"Via {last}",
               f"Calle {last}", f"Avenida {last}")  # fmt: skip
    foreign_name = rng.choice(foreign)
    return rng.choice((f"{number} {name}",) * 3 + (f"{name} {number}",) * 2 + (f"{foreign_name} {number}",) * 2)


def draw_any_price(rng: random.Random) -> str:
    """A price in one of the usual ways of writing: $4.50, £12, 8,90 €, 15 EUR."""
    whole, cents = rng.choice((rng.randint(1, 20), rng.randint(1, 99), rng.randint(100, 900))), rng.randrange(100)
    ways = (f"${whole}.{cents:02d}", f"£{whole}.{cents:02d}", f"€{whole}.{cents:02d}", f"{whole}.{cents:02d} €",
            f"{whole},{cents:02d} €", f"${whole}", f"£{whole}", f"{whole} EUR", f"{whole}.{cents:02d}")  # fmt: skip
    return rng.choice(ways)


def draw_time(rng: random.Random) -> str:
    """A time of day, as 9:05, 09:05, 9 am, 9.05 or 9:05 pm."""
    hour, minute = rng.randrange(24), rng.choice((0, 15, 30, 45, rng.randrange(60)))
    half, twelve = rng.choice(("am", "pm")), hour % 12 or 12
    ways = (f"{hour}:{minute:02d}", f"{hour:02d}:{minute:02d}", f"{twelve} {half}")
    rare = (f"{twelve}:{minute:02d} {half}", f"{hour}.{minute:02d}", f"{hour}h{minute:02d}", f"{twelve}{half}")
    return rng.choice(ways * 2 + rare)


def draw_text(rng: random.Random) -> str:
    """The text of a line: a sign's words, several words, a name, or one word, number, code or price."""
    way = rng.random()
    if way > 0.94:
        return rng.choice(_MARKUP)
    if way < 0.25:
        text = rng.choice(SIGNS)
        return text.upper() if rng.random() < 0.3 else text
    if way < 0.4:
        return " ".join(words.draw_word(rng, False).lower() for _ in range(rng.randint(2, 5))).capitalize()
    return draw_person(rng) if way < 0.5 else words.draw_content(rng, False, 12)


def draw_texts(rng: random.Random, count: int) -> list[str]:
    """So many texts of lines, each different from the others."""
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[draw_text(rng)] = None
    return list(texts)


# What forms ask for, and how it is filled in.
FIELDS: dict[str, Callable[[random.Random], str]] = {
    "Name": draw_person,
    "Full name": draw_person,
    "City": lambda r: r.choice(CITIES),
    "Country": lambda r: r.choice(COUNTRIES),
    "Date": words.draw_date,
    "Date of birth": words.draw_date,
    "Phone": draw_phone,
    "Telephone": draw_phone,
    "Age": lambda r: str(r.randint(18, 90)),
    "Code": words.draw_code,
    "Room": lambda r: r.choice((str(r.randint(1, 499)), words.draw_code(r))),
    "Street": draw_street,
    "Address": lambda r: draw_street(r) + (f", {r.choice(CITIES)}" if r.random() < 0.3 else ""),
    "Email": draw_mail,
    "Item": lambda r: r.choice(ITEMS),
    "Number": words.draw_number,
    "Price": words.draw_price,
    "Order": words.draw_code,
    "Order number": words.draw_number,
    "Invoice": words.draw_code,
    "Status": lambda r: r.choice(("paid", "open", "shipped", "closed", "pending", "active", "ready")),
    "Owner": draw_person,
    "Team": lambda r: r.choice(("Red", "Blue", "North", "South", "Eagles", "Lions", "Alpha")),
    "Year": lambda r: str(r.randint(1950, 2040)),
    "Floor": lambda r: str(r.randint(0, 30)),
    "Seat": lambda r: f"{r.randint(1, 40)}{r.choice('ABCDEF')}",
    "Gate": lambda r: f"{r.choice('ABCDE')}{r.randint(1, 40)}",
    "Flight": lambda r: f"{r.choice(('LH', 'BA', 'AF', 'KL', 'UA'))}{r.randint(100, 9999)}",
    "Train": lambda r: f"{r.choice(('IC', 'RE', 'EC'))} {r.randint(10, 999)}",
    "Time": draw_time,
    "Weight": lambda r: f"{r.randint(1, 99)} {r.choice(('kg', 'g', 'lb'))}",
    "Height": lambda r: f"{r.randint(100, 210)} cm",
    "Size": lambda r: r.choice(("S", "M", "L", "XL", "38", "42")),
    "Speed": lambda r: f"{r.randint(5, 200)} km/h",
    "Score": words.draw_number,
    "Class": lambda r: f"{r.randint(1, 12)}{r.choice('ABC')}",
    "Amount": words.draw_price,
    "Balance": words.draw_price,
    "Total": words.draw_price,
    "Due date": words.draw_date,
    "Model": words.draw_code,
    "Department": lambda r: r.choice(("Sales", "Finance", "Support", "Research", "Design")),
    "Job title": lambda r: r.choice(JOBS),
    "Website": draw_site,
}
