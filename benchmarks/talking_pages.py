"""The receipts, menus, cards, tables, windows and posters of talking_drawings.py: what is written on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.talking_drawings import (
    Drawn,
    Kit,
    draw_card,
    draw_dialog,
    draw_menu,
    draw_poster,
    draw_receipt,
    draw_table,
    name,
    number,
    text,
    unknown,
    yes_no,
)

_RECEIPTS: tuple[tuple[str, str, list[tuple[str, float]], str], ...] = (
    ("Corner Grocery", "12 Mill Lane", [("Oranges", 3.49), ("Rye bread", 2.85), ("Yoghurt", 1.19), ("Olive oil", 7.99)],
     "EUR"),
    ("Book Nook", "5 Abbey Road", [("Atlas", 24.90), ("Notebook", 4.50), ("Postcard", 1.20)], "USD"),
    ("Garden Centre", "Elm Park 3", [("Tomato plant", 2.99), ("Watering can", 12.5), ("Seeds", 1.79), ("Gloves", 6.4)],
     "EUR"),
    ("Blue Harbour", "Quay 9", [("Fish soup", 8.50), ("Grilled trout", 16.90), ("Mineral water", 3.20)], "EUR"),
    ("City Hardware", "44 King Street", [("Paint brush", 5.25), ("Nails", 3.10), ("Hammer", 14.95), ("Tape", 2.35)],
     "USD"),
    ("Petit Cafe", "Rue du Port 8", [("Espresso", 2.20), ("Croissant", 1.90), ("Lemon tart", 4.60)], "EUR"),
    ("Toy Box", "7 Market Square", [("Kite", 11.99), ("Puzzle", 9.49), ("Marbles", 3.75), ("Yo-yo", 2.25)], "GBP"),
    ("Stationers", "Oak Avenue 21", [("Envelopes", 3.30), ("Ink", 8.80), ("Stapler", 6.95)], "GBP"),
)  # fmt: skip
_MENUS = (
    ("The Green Fork", [("Onion soup", 5.8), ("Lentil stew", 9.4), ("Baked potato", 7.2), ("Apple pie", 4.5)]),
    ("Casa Lucia", [("Bruschetta", 6.5), ("Gnocchi", 11.9), ("Risotto", 13.5), ("Tiramisu", 5.9), ("Espresso", 2.4)]),
    ("Noodle Bar", [("Ramen", 12.8), ("Dumplings", 6.9), ("Fried rice", 9.5), ("Green tea", 2.8)]),
    ("Morning Star", [("Porridge", 4.2), ("Scrambled eggs", 6.3), ("Pancakes", 7.1), ("Orange juice", 3.4)]),
    ("Old Mill Inn", [("Roast beef", 17.5), ("Trout", 15.8), ("Mushroom pie", 12.4), ("Cheese plate", 8.9)]),
    ("Burger Works", [("Cheeseburger", 8.9), ("Veggie burger", 8.4), ("French fries", 3.5), ("Milkshake", 4.8)]),
)
_CARDS = (
    ("Maria Hofmann", "Architect", "Hofmann & Partner", "+49 30 5550142", "maria@hofmann.example"),
    ("Daniel Okafor", "Sales Manager", "Northwind Ltd", "020 7946 0821", "d.okafor@northwind.example"),
    ("Yuki Tanaka", "Photographer", "Studio Mikan", "03 5550 7719", "hello@mikan.example"),
    ("Elena Petrova", "Dentist", "Smile Clinic", "555-0147", "petrova@smile.example"),
    ("Tom Brewster", "Plumber", "Brewster Pipes", "(503) 555-0192", "tom@brewster.example"),
    ("Aisha Rahman", "Lawyer", "Rahman Legal", "0161 496 0337", "office@rahman.example"),
)
_TRAINS = [
    ["08:05", "Lindau", "3", "on time"],
    ["08:17", "Bremen", "7", "5 min late"],
    ["08:32", "Dresden", "1", "on time"],
    ["08:46", "Kassel", "12", "cancelled"],
    ["09:02", "Ulm", "4", "on time"],
]
_STOCK = [["Chairs", "48", "29.90"], ["Tables", "12", "149.00"], ["Lamps", "35", "24.50"], ["Shelves", "20", "79.00"]]
_GRADES = [
    ["Anna", "1.7", "Chemistry"],
    ["Boris", "2.3", "Latin"],
    ["Clara", "1.3", "Music"],
    ["David", "3.0", "Sport"],
]
_MONTHS = [
    ["January", "4210", "3805"],
    ["February", "3990", "4020"],
    ["March", "4550", "4310"],
    ["April", "5120", "4480"],
]
_TEAMS = [["Rovers", "28", "61"], ["Athletic", "28", "54"], ["Wanderers", "28", "49"], ["United", "28", "33"]]
_CITIES = [["Oslo", "Norway", "-3"], ["Cairo", "Egypt", "24"], ["Lima", "Peru", "19"], ["Delhi", "India", "31"]]


def draw_pages(fetch: Callable[[str], Path]) -> Iterator[tuple[str, Drawn]]:
    """Every image with its group."""
    for shop, street, items, currency in _RECEIPTS:
        yield "receipts", draw_receipt(Kit(fetch, f"receipt {shop}"), shop, street, items, currency)
    for title, dishes in _MENUS:
        yield "menus", draw_menu(Kit(fetch, f"menu {title}"), title, dishes)
    for person, *rest in _CARDS:
        yield "business cards", draw_card(Kit(fetch, f"card {person}"), person, *rest)
    yield from (("tables", drawn) for drawn in _draw_tables(fetch))
    yield from (("windows", drawn) for drawn in _draw_windows(fetch))
    yield from (("posters", drawn) for drawn in _draw_posters(fetch))


def _draw_tables(fetch: Callable[[str], Path]) -> Iterator[Drawn]:
    def kit(title: str) -> Kit:
        return Kit(fetch, f"table {title}")

    yield draw_table(kit("trains"), "Departures", ["Time", "To", "Platform", "Status"], _TRAINS, [
        number("From which platform does the train to Bremen leave?", 7),
        text("When does the train to Dresden leave?", "08:32"),
        text("Which train is cancelled?", "Kassel", "the one to Kassel", others=("Lindau", "Bremen", "Dresden", "Ulm")),
        unknown("How much is a ticket to Ulm?"),
    ])  # fmt: skip
    yield draw_table(kit("stock"), "Warehouse", ["Article", "Pieces", "Price"], _STOCK, [
        number("How many lamps are there?", 35), number("What is the price of the tables?", 149),
        unknown("Who is the supplier of the chairs?"),
    ])  # fmt: skip
    yield draw_table(kit("grades"), "Class 10b", ["Name", "Average", "Best subject"], _GRADES, [
        number("What is the average of Boris?", 2.3),
        text("What is the best subject of Clara?", "Music", others=("Chemistry", "Latin", "Sport")),
        unknown("How old is David?"),
    ])  # fmt: skip
    yield draw_table(kit("months"), "Income and costs", ["Month", "Income", "Costs"], _MONTHS, [
        number("What was the income in March?", 4550), number("What were the costs in April?", 4480),
        text("In which month was the income the highest?", "April", others=("January", "February", "March")),
    ])  # fmt: skip
    yield draw_table(kit("teams"), "League table", ["Team", "Games", "Points"], _TEAMS, [
        number("How many points do the Wanderers have?", 49), number("How many games were played?", 28),
        text("Which team is first?", "Rovers", others=("Athletic", "Wanderers", "United")),
    ])  # fmt: skip
    yield draw_table(kit("cities"), "Weather today", ["City", "Country", "Temperature"], _CITIES, [
        number("How warm is it in Lima?", 19), text("In which country is Cairo?", "Egypt"),
        text("Which city is the coldest?", "Oslo", others=("Cairo", "Lima", "Delhi")),
        unknown("How strong is the wind in Delhi?"),
    ])  # fmt: skip


def _draw_windows(fetch: Callable[[str], Path]) -> Iterator[Drawn]:
    def draw(title: str, message: str, buttons: list[str], *asked: dict[str, object]) -> Drawn:
        return draw_dialog(Kit(fetch, f"window {title}"), title, message, buttons, list(asked))

    yield draw("Save changes?", "Do you want to save the changes\nto report.odt before closing?",
               ["Cancel", "Don't save", "Save"],
               number("How many buttons are there?", 3), text("Which file is it about?", "report.odt"))  # fmt: skip
    yield draw("Network error", "The server did not respond.\nError code: E-4012", ["Retry", "Close"],
               text("What is the error code?", "E-4012"),
               text("What is the title of the window?", "Network error"))  # fmt: skip
    yield draw("Update available", "Version 7.3.1 can be installed now.\nSize: 148 MB", ["Later", "Install"],
               text("Which version can be installed?", "7.3.1", "Version 7.3.1"),
               text("How large is the update?", "148 MB", "148"),
               unknown("When was the update published?"))  # fmt: skip
    yield draw("Battery low", "11 % remaining.\nPlease connect the charger.", ["OK"],
               number("How much battery is left?", 11), name("What should be connected?", "charger"))  # fmt: skip
    yield draw("Sign in", "User: jmartin42\nPassword: ********", ["Cancel", "Sign in"],
               text("What is the user name?", "jmartin42"), unknown("What is the password?"))  # fmt: skip
    yield draw("Print", "Printer: Ground floor\nCopies: 15\nPages: 2-9", ["Cancel", "Print"],
               number("How many copies are printed?", 15), text("Which printer is used?", "Ground floor"),
               text("Which pages are printed?", "2-9", "2 to 9"))  # fmt: skip
    yield draw("New message", "From: Lena\nThe meeting is moved to Thursday, 14:30.", ["Reply", "Dismiss"],
               text("Who wrote the message?", "Lena"), text("On which day is the meeting?", "Thursday"),
               text("At what time is the meeting?", "14:30"), unknown("Where is the meeting?"))  # fmt: skip
    yield draw("Delete folder", "The folder Holiday has 236 photos.\nThis cannot be undone.", ["Keep", "Delete"],
               number("How many photos are in the folder?", 236), text("What is the folder called?", "Holiday"),
               yes_no("Can this be undone?", False))  # fmt: skip


def _draw_posters(fetch: Callable[[str], Path]) -> Iterator[Drawn]:
    def draw(title: str, facts: list[str], *asked: dict[str, object]) -> Drawn:
        return draw_poster(Kit(fetch, f"poster {title}"), title, facts, list(asked))

    yield draw("JAZZ NIGHT", ["Friday, 12 June", "Old Brewery, 20:00"],
               text("What is the title of the poster?", "JAZZ NIGHT"), text("Where does it take place?", "Old Brewery"),
               text("On which date is it?", "12 June", "Friday, 12 June"), unknown("Who is the singer?"))  # fmt: skip
    yield draw("Flea Market", ["Sunday 9 - 16 h", "Town Hall Square"],
               text("What is the poster about?", "Flea Market"), text("On which day is it?", "Sunday"))  # fmt: skip
    yield draw("CITY RUN", ["Start: 10:15 at the stadium", "Entry fee 18 euros"],
               number("How much is the entry fee?", 18), text("When does it start?", "10:15"),
               unknown("How long is the course?"))  # fmt: skip
    yield draw("Romeo and Juliet", ["Globe Theatre", "3 to 28 March"],
               text("Which play is shown?", "Romeo and Juliet"),
               text("At which theatre is it?", "Globe", "Globe Theatre"))  # fmt: skip
    yield draw("Lost Cat", ["Answers to Minka", "Call 555-0163"],
               text("What is the name of the cat?", "Minka"),
               text("Which number should one call?", "555-0163"))  # fmt: skip
    yield draw("SUMMER SALE", ["Up to 60 % off", "until 31 August"],
               number("How many percent off are there?", 60), text("Until when is the sale?", "31 August"))  # fmt: skip
