"""The values that records are filled with: words of signs, names, things to buy, numbers, dates and addresses."""

from __future__ import annotations

import random
from collections.abc import Callable

from llava.synth import words

SIGNS = (
    "STOP;EXIT;OPEN;CLOSED;PUSH;PULL;NO PARKING;FOR SALE;WET FLOOR;SALE;DANGER;KEEP OUT;NO SMOKING;ONE WAY;YIELD;"
    "WAY OUT;TOILETS;BUS STOP;TAXI;CAFE;BAKERY;PHARMACY;MUSEUM;LIBRARY;HOTEL;BOOKS;FRESH FRUIT;COFFEE;PIZZA;ICE CREAM;"
    "Welcome;Thank you;Mind the gap;Do not enter;Please wait here;Staff only;Beware of the dog;Ring the bell;"
    "Reserved;Private property;Happy birthday;Good luck;Caution;Speed limit 50;Gate 12;Platform 4;Room 101;Exit 23;"
    "Emergency exit;Fire exit;Free Wi-Fi;No entry;Slow down;School zone;Lost dog;Garage sale;Open 24 hours;Back soon;"
    "Tickets;Information;Main Street;Park Avenue;Market Square;Station Road;North Bridge;Lake View;Elm Street"
).split(";")
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
FIRST_NAMES = (
    "Anna Ben Carla David Elena Frank Grace Henry Irene Jack Karen Leo Maria Nina Oscar Paula Robert Sara Thomas Uma "
    "Victor Wendy James Emma Lucas Olivia Peter Laura Daniel Sophie"
).split()
LAST_NAMES = (
    "Smith Jones Brown Miller Davis Wilson Moore Taylor Clark Lewis Walker Hall Young King Wright Hill Green Baker "
    "Carter Mitchell Turner Parker Evans Collins Stewart Morris Rogers Reed Cook Bell Murphy Bailey Cooper Ward"
).split()
CITIES = (
    "London Paris Berlin Madrid Rome Vienna Oslo Boston Chicago Denver Austin Seattle Dublin Lisbon Prague Athens "
    "Toronto Sydney Tokyo Delhi Cairo Lima Geneva Milan Bristol Leeds Utrecht Porto Krakow Bergen"
).split()
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
    """A telephone number in one of four forms."""
    digits = "".join(str(rng.randrange(10)) for _ in range(7))
    return rng.choice(
        (f"555-{digits[:4]}", f"+44 20 {digits}", f"({digits[:3]}) {digits[3:]}", f"0{digits[:3]} {digits[3:]}")
    )


def draw_mail(rng: random.Random) -> str:
    """An e-mail address."""
    place = rng.choice(("example.com", "mail.com", "post.org", f"{words.draw_word(rng, False).lower()}.net"))
    return f"{rng.choice(('info', rng.choice(FIRST_NAMES).lower(), 'office', 'sales'))}@{place}"


def draw_time(rng: random.Random) -> str:
    """A time of day, as 9:05, 09:05 or 9 am."""
    hour, minute = rng.randrange(24), rng.choice((0, 15, 30, 45, rng.randrange(60)))
    return rng.choice(
        (f"{hour}:{minute:02d}", f"{hour:02d}:{minute:02d}", f"{hour % 12 or 12} {rng.choice(('am', 'pm'))}")
    )


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
    "Country": lambda r: r.choice(("France", "Spain", "Italy", "Canada", "Japan", "India", "Norway", "Brazil", "Peru")),
    "Date": words.draw_date,
    "Date of birth": words.draw_date,
    "Phone": draw_phone,
    "Telephone": draw_phone,
    "Age": lambda r: str(r.randint(18, 90)),
    "Code": words.draw_code,
    "Room": lambda r: r.choice((str(r.randint(1, 499)), words.draw_code(r))),
    "Street": lambda r: f"{r.choice(LAST_NAMES)} {r.choice(('Street', 'Road', 'Lane'))} {r.randint(1, 99)}",
    "Address": lambda r: f"{r.randint(1, 199)} {r.choice(LAST_NAMES)} {r.choice(('Street', 'Avenue', 'Road'))}",
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
    "Job title": lambda r: r.choice(("Engineer", "Manager", "Teacher", "Nurse", "Designer", "Analyst")),
    "Website": lambda r: f"www.{words.draw_word(r, False).lower()}.com",
}
