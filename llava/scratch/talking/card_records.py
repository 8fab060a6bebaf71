"""Records of business cards, of windows and dialogs on a screen, and of menus with sections."""

from __future__ import annotations

import random
import re
from dataclasses import replace

from llava.model.lexical.description import describe, join_rows
from llava.scratch.talking.drawn_values import (
    CITIES,
    JOBS,
    LAST_NAMES,
    draw_absent,
    draw_apart,
    draw_item,
    draw_label,
    draw_mail,
    draw_person,
    draw_phone,
    draw_site,
    draw_street,
)
from llava.scratch.talking.receipt_records import FORMS, draw_price_layout, lay_out_prices
from llava.scratch.talking.seen_records import (
    Record,
    ask_description,
    ask_for_text,
    ask_unknown,
    pick,
    place_row,
    quote,
)
from llava.synth import words
from llava.text import list_all

_COMPANIES = (
    "Ltd;Inc;GmbH;& Sons;Studio;Consulting;Clinic;Partners;Group;Solutions;Logistics;Legal;Design;Labs;Works;Media;"
    "Motors;Foods;Travel;& Partner"
).split(";")
_ASKED_OF_CARDS = {
    "name": (
        "What is the name of the person?",
        "Whose card is this?",
        "Whose business card is it?",
        "Who is this card from?",
        "What is the name?",
    ),
    "job": (
        "What is the job of {name}?",
        "What is the profession?",
        "What does {name} do?",
        "What is the job title?",
        "What is the position of {name}?",
        "What does this person do?",
    ),
    "company": (
        "What is the name of the company?",
        "Which company is it?",
        "Where does {name} work?",
        "Which company is named on the card?",
    ),
    "phone": (
        "What is the phone number?",
        "What is the telephone number?",
        "How can I call {name}?",
        "At which number can I reach {name}?",
        "What is the number?",
    ),
    "mail": (
        "What is the e-mail address?",
        "What is the email?",
        "Which e-mail address is given?",
        "At which e-mail address can I write to {name}?",
        "What e-mail address is on the card?",
    ),
    "address": (
        "What is the address?",
        "Where is the office?",
        "In which street is it?",
        "What is the street address?",
    ),
    "site": ("What is the website?", "Which website is given?"),
}
_SAID_OF_CARDS = {
    "name": ("The name is {}.", "It is the card of {}."),
    "job": ("{name} is {a} {}.", "The job title is {}."),
    "company": ("The company is {}.", "It is {}."),
    "phone": ("The phone number is {}.", "It is {}."),
    "mail": ("The e-mail address is {}.", "It is {}."),
    "address": ("The address is {}.", "It is {}."),
    "site": ("The website is {}.", "It is {}."),
}


def draw_card_record(rng: random.Random) -> Record:
    """A business card: a person, and some of job, company, telephone, e-mail, address and website."""
    owner = rng.choice((rng.choice(LAST_NAMES), words.draw_word(rng, False).title()))
    facts = {
        "name": draw_person(rng),
        "job": rng.choice(JOBS),
        "company": f"{owner} {rng.choice(_COMPANIES)}",
        "phone": draw_phone(rng),
        "mail": draw_mail(rng),
        "address": draw_street(rng),
        "site": draw_site(rng),
    }
    held = ["name", *rng.sample([key for key in facts if key != "name"], rng.randint(3, 6))]
    held.sort(key=list(facts).index)
    if rng.random() < 0.4 and "company" in held:  # the company's name as the heading
        held.remove("company")
        held.insert(0, "company")
    before = {
        "phone": ("", "", "Tel. ", "T ", "Phone: ", "Tel: ", "Mobile "),
        "site": ("", "", "", "Web: ", "Online: "),
        "mail": ("", "", "E-mail: ", "Mail: ", "E "),
    }
    texts = [rng.choice(before.get(key, ("",))) + facts[key] for key in held]
    if rng.random() < 0.3:
        texts[0] = texts[0].upper()
        facts[held[0]] = facts[held[0]].upper()
    ink, ground = rng.choice((("black", "white"),) * 3 + (("white", "blue"), ("white", "black"), ("blue", "white")))
    lines = [replace(line, ink=ink, ground=ground) for y, text in enumerate(texts) for line in place_row(y, text)]
    record = Record("text", describe((700, 400), lines, []))
    a = "an" if facts["job"][0] in "AEIOU" else "a"
    for key in held:
        question, answer = rng.choice(_ASKED_OF_CARDS[key]), rng.choice(_SAID_OF_CARDS[key])
        answer = answer.format(facts[key], name=facts["name"], a=a)
        record.ask(question.format(name=facts["name"]), answer)
    missing = {"phone": "phone number", "mail": "e-mail address", "address": "address", "site": "website"}
    for key, what in missing.items():
        if key not in held and rng.random() < 0.7:
            record.ask(rng.choice(_ASKED_OF_CARDS[key]).format(name=facts["name"]), f"I see no {what} in the image.")
    given = [f"the {what} {facts[key]}" for key, what in missing.items() if key in held]
    shown = f"It shows {list_all(given)}." if given else ""
    record.ask(ask_description(rng), f"This is a business card of {facts['name']}. {shown}".strip())
    record.ask(*ask_for_text(rng, join_rows(lines)))
    ask_unknown(rng, record, rate=0.3, known=" ".join(missing[key] for key in held if key in missing))
    return record.shorten(rng)


_WINDOWS = (
    "Save changes;Settings;Update;Login;Download;Print;Error;Warning;New document;Delete file;Password;Preferences;"
    "Connection lost;Installation;Battery low;Sign in;Send message;Shutdown;Export;Notifications"
).split(";")
_MESSAGES = (
    "Do you want to save the changes?;The file could not be found.;Your password has expired.;Are you sure?;"
    "The update is ready to install.;The connection was lost.;Please enter your name.;Not enough space on the disk.;"
    "The document was printed.;Restart the computer now?;A new version is available.;Your session has ended.;"
    "Delete the selected files?;The battery is almost empty.;Wrong user name or password."
).split(";")
_BUTTONS = (
    "OK;Cancel;Save;Don't save;Yes;No;Retry;Close;Install;Later;Print;Delete;Help;Apply;Send;Next;Back;Restart;Log in"
).split(";")
_OPTIONS = (
    "Language;Sound;Volume;Theme;Font size;Network;Printer;Time zone;Backup;Keyboard;Brightness;Privacy;Folder;Quality"
).split(";")
_STATES = "on;off;English;Dark;Light;12;14;High;Low;Daily;Never;80 %;50 %;Documents;Automatic".split(";")


def draw_window_record(rng: random.Random) -> Record:
    """A window or a dialog: a title, a message or options with values, and one to three buttons."""
    title = rng.choice(_WINDOWS)
    buttons = rng.sample(_BUTTONS, rng.randint(1, 3))
    options: list[tuple[str, str]] = []
    table: list[tuple[str, ...]] = [(title,)]
    message = ""
    if rng.random() < 0.55:
        message = rng.choice(_MESSAGES)
        table.append((message,))
    else:
        options = [(option, rng.choice(_STATES)) for option in rng.sample(_OPTIONS, rng.randint(2, 5))]
        table += [(f"{option}: {state}",) if rng.random() < 0.3 else (option, state) for option, state in options]
    lines = [line for y, row in enumerate([*table, tuple(buttons)]) for line in place_row(y, *row)]
    bar = rng.choice(("white", "white", "blue", "black"))
    if bar != "white":
        lines[0] = replace(lines[0], ink="white", ground=bar)
    for i in range(len(lines) - len(buttons), len(lines)):
        if rng.random() < 0.3:
            lines[i] = replace(lines[i], ink="white", ground=rng.choice(("blue", "green", "red")))
    record = Record("text", describe((600, 400), lines, []))
    question = pick(rng, "What is the title of the window?", "What is the title?", "What is the window called?")
    record.ask(question, f"The title is {quote(rng, title)}.")
    listed = list_all(buttons)
    question = pick(rng, "Which buttons are there?", "What do the buttons say?", "Which buttons can I press?")
    record.ask(question, f"The button is {listed}." if len(buttons) == 1 else f"The buttons are {listed}.")
    count = "1 button" if len(buttons) == 1 else f"{len(buttons)} buttons"
    question = pick(rng, "How many buttons are there?", "How many buttons does the window have?",
                    "How many buttons are in the window?")  # fmt: skip
    record.ask(question, f"There {'is' if len(buttons) == 1 else 'are'} {count}.")
    other = rng.choice([button for button in _BUTTONS if button not in buttons])
    asked = rng.choice((buttons[0], other))
    holds = asked == buttons[0]
    is_there = f"{'Yes' if holds else 'No'}, there is {'a' if holds else 'no'} button {asked}."
    record.ask(f"Is there a button {quote(rng, asked)}?", is_there)
    if message:
        question = pick(rng, "What is the message?", "What does the message say?", "What does the window say?")
        record.ask(question, f"It says {quote(rng, message)}")
        about = f'The image shows a window with the title {title}. It says "{message}"'
    else:
        for option, state in options:
            question = pick(rng, "What is the {}?", "What is {} set to?", "What is the value of {}?", "{}?")
            record.ask(question.format(option if rng.random() < 0.5 else option.lower()), f"The {option} is {state}.")
        about = f"The image shows a window with the title {title}. It lists {list_all([o for o, _ in options])}."
    record.ask(ask_description(rng), about)
    record.ask(*ask_for_text(rng, join_rows(lines)))
    ask_unknown(rng, record, rate=0.25, known=" ".join(name for name, _ in options))
    return record.shorten(rng)


_SECTIONS = ("Starters", "Soups", "Main courses", "Desserts", "Drinks", "Breakfast", "Snacks", "Salads", "Specials")


def draw_menu_record(rng: random.Random) -> Record:
    """A menu with one to three sections of dishes and prices."""
    owner = rng.choice((rng.choice(LAST_NAMES), rng.choice(CITIES), draw_label(rng).title()))
    name = rng.choice((f"Cafe {owner}", f"The {owner} Inn", owner, f"{owner} Bistro", "Lunch menu", "Menu"))
    name = name.upper() if rng.random() < 0.4 else name
    sections = rng.sample(_SECTIONS, rng.randint(1, 3))
    dishes = iter(draw_apart(rng, draw_item, 12))
    form, are_whole = rng.choice(FORMS), rng.random() < 0.15
    cents = iter(rng.sample(range(150, 2400), 12))

    def draw_price() -> str:
        price = next(cents)
        return str(price // 10) if are_whole else form.format(whole=price // 100, cents=f"{price % 100:02d}")

    held = {section: {next(dishes): draw_price() for _ in range(rng.randint(2, 4))} for section in sections}
    dots = rng.choice(("", "", " ....", " . . . ."))
    table: list[tuple[str, ...]] = [(name,)]
    is_grid = rng.random() < 0.15 and not are_whole
    way = draw_price_layout(rng)
    for section, prices in held.items():
        table += [(section,)] if len(sections) > 1 or rng.random() < 0.5 else []
        dishes_and_prices = [(dish if is_grid else dish + dots, price) for dish, price in prices.items()]
        if is_grid:
            table += [row for i in range(0, len(prices), 2) for row in zip(*dishes_and_prices[i : i + 2], strict=True)]
        else:
            table += lay_out_prices(way, dishes_and_prices)
    record = Record(
        "text", describe((600, 800), [line for y, row in enumerate(table) for line in place_row(y, *row)], [])
    )
    prices = {dish: price for of_section in held.values() for dish, price in of_section.items()}
    for dish, price in rng.sample(list(prices.items()), min(4, len(prices))):
        question = pick(rng, "How much is the {}?", "What does the {} cost?", "What is the price of the {}?")
        answer = pick(rng, "The {} costs {}.", "The {} is {}.").format(dish, price)
        record.ask(question.format(dish if rng.random() < 0.5 else dish.lower()), answer)
    section = rng.choice(sections)
    if any(row == (section,) for row in table):
        question = pick(rng, "What is listed under {}?", "Which {} are there?", "What {} do they have?")
        record.ask(question.format(section), f"Under {section} there are {list_all(list(held[section]))}.")
    for word, most in (("most expensive", max), ("cheapest", min)):
        dish = most(prices, key=lambda each: float(re.sub(r"[^\d.]", "", prices[each].replace(",", "."))))
        question = pick(rng, f"What is the {word} dish?", f"Which dish is the {word}?", f"What is the {word} item?")
        record.ask(question, f"The {word} dish is {dish}, for {prices[dish]}.")
    if name not in ("Menu", "MENU", "Lunch menu", "LUNCH MENU"):
        question = pick(rng, "What is the name of the restaurant?", "What is the restaurant called?",
                        "What is the name of the place?", "What is the place called?")  # fmt: skip
        record.ask(question, f"It is called {name}.")
    other = draw_absent(rng, draw_item, record.description)
    record.ask(f"How much is the {other.lower()}?", f"I see no {other.lower()} in the image.")
    record.ask(ask_description(rng), f"The image shows a menu with {len(prices)} items: {list_all(list(prices))}.")
    ask_unknown(rng, record, rate=0.3, known="price")
    return record.shorten(rng)
