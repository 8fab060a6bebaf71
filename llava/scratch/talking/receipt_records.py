"""Records of receipts, menus and price lists: items, their prices, and on receipts the total."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from llava.model.lexical.description import describe, join_rows
from llava.scratch.talking.drawn_values import (
    CITIES,
    FIRST_NAMES,
    LAST_NAMES,
    draw_absent,
    draw_apart,
    draw_item,
    draw_phone,
)
from llava.scratch.talking.seen_records import (
    Line,
    Record,
    ask_description,
    ask_for_text,
    ask_unknown,
    pick,
    place_row,
    say_missing,
)
from llava.synth import words
from llava.text import list_all

_SHOPS = ("Market", "Cafe", "Bakery", "Grocery", "Deli", "Store", "Kitchen", "Books", "Bistro", "Supermarket", "Shop")
_THANKS = ("Thank you!", "Thank you for your visit", "Have a nice day")


# How prices are written.
FORMS = (
    *("{whole}.{cents}",) * 4, *("${whole}.{cents}",) * 2, "€{whole}.{cents}", "£{whole}.{cents}", "{whole},{cents}",
    "{whole},{cents}", "{whole},{cents} €", "{whole}.{cents} €", "{whole}.{cents}$", "€ {whole},{cents}",
)  # fmt: skip


def draw_price_layout(rng: random.Random) -> str:
    """How prices stand to their names: "beside", "joined" in one cell, "first", or "below"."""
    return rng.choices(("beside", "joined", "first", "below"), (0.5, 0.2, 0.12, 0.18))[0]


def lay_out_prices(way: str, rows: Sequence[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Names and prices as rows of cells. ``way``: of ``draw_price_layout``."""
    if way == "below":
        return [(cell,) for row in rows for cell in row]
    if way == "joined":
        return [(f"{name} {price}",) for name, price in rows]
    return [(price, name) if way == "first" else (name, price) for name, price in rows]


@dataclass(frozen=True)
class _Receipt:
    """What a receipt, a menu or a price list says; "" where it does not say it.

    Attributes:
        kind: "receipt", "menu" or "price list".
        form: how amounts are written, with ``whole`` and ``cents``.
        cents: the prices of the items.
    """

    kind: str
    form: str
    items: list[str]
    cents: list[int]
    shop: str
    date: str
    phone: str
    address: str
    cashier: str
    given: int  # the cents that were paid in cash; 0 where the receipt does not say it

    def write(self, cents: int) -> str:
        """An amount as the receipt has it."""
        return self.form.format(whole=cents // 100, cents=f"{cents % 100:02d}")

    @property
    def total(self) -> str:
        """What has to be paid; "" if this is no receipt."""
        return self.write(sum(self.cents)) if self.kind == "receipt" else ""

    @property
    def change(self) -> str:
        """What was given back; "" where the receipt does not say it."""
        return self.write(self.given - sum(self.cents)) if self.given else ""

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The items with their prices as they are written."""
        return list(zip(self.items, map(self.write, self.cents), strict=True))


def draw_receipt_record(rng: random.Random) -> Record:
    """A receipt, a price list or a menu of two to nine items."""
    receipt = _draw_receipt(rng)
    lines = _draw_lines(rng, receipt)
    record = Record("text", describe((400, 600), lines, []))
    _ask_for_prices(rng, record, receipt)
    _ask_for_head(rng, record, receipt)
    _ask_for_items(rng, record, receipt)
    record.ask(*ask_for_text(rng, join_rows(lines)))
    ask_unknown(rng, record, rate=0.25, known="price total")
    name = f" from {receipt.shop}" if receipt.shop else ""
    end = f" The total is {receipt.total}." if receipt.total else ""
    count = f"with {len(receipt.items)} items: {list_all(receipt.items)}."
    record.ask(ask_description(rng), f"The image shows a {receipt.kind}{name} {count}{end}")
    return record.shorten(rng)


def _draw_receipt(rng: random.Random) -> _Receipt:
    items = draw_apart(rng, draw_item, rng.randint(2, 9))
    kind = rng.choice(("receipt", "receipt", "menu", "price list"))
    owner = rng.choice((rng.choice(LAST_NAMES), rng.choice(CITIES), words.draw_word(rng, False).title()))
    shop = f"{owner} {rng.choice(_SHOPS)}" if rng.random() < 0.8 else ""
    date = words.draw_date(rng) if kind == "receipt" and rng.random() < 0.6 else ""
    cents = rng.sample(range(50, 4000), len(items))
    return _Receipt(
        kind=kind,
        form=rng.choice(FORMS),
        items=items,
        cents=cents,
        shop=shop.upper() if rng.random() < 0.5 else shop,
        date=date,
        phone=draw_phone(rng) if rng.random() < 0.3 else "",
        address=_draw_address(rng) if rng.random() < 0.25 else "",
        cashier=rng.choice(FIRST_NAMES) if kind == "receipt" and rng.random() < 0.25 else "",
        given=_draw_given(rng, sum(cents)) if kind == "receipt" and rng.random() < 0.25 else 0,
    )


def _draw_address(rng: random.Random) -> str:
    street, number = rng.choice(LAST_NAMES), rng.randint(1, 199)
    way = rng.choice(("Street", "Road", "Avenue", "Lane", "Square"))
    return rng.choice((f"{number} {street} {way}", f"{street} {way} {number}"))


def _draw_given(rng: random.Random, cents: int) -> int:
    """A round amount above what has to be paid."""
    step = rng.choice((500, 1000, 2000))
    return (cents // step + 1) * step


def _draw_lines(rng: random.Random, receipt: _Receipt) -> list[Line]:
    """The lines in reading order; an item and its price are two lines side by side, or one."""
    said = (receipt.shop, receipt.address, receipt.date, receipt.phone, receipt.cashier)
    ways = ("{}", "{}", rng.choice(("{}", "Date: {}")), "Tel. {}", rng.choice(("Cashier: {}", "Served by {}")))
    shown = [way.format(text) for way, text in zip(ways, said, strict=True) if text]
    rows = receipt.rows
    if receipt.total:
        if rng.random() < 0.4:
            rows.append((rng.choice(("Tax", "VAT")), receipt.write(sum(receipt.cents) // 10)))
        rows.append(
            (
                rng.choice(
                    (
                        "Total",
                        "TOTAL",
                        "Total",
                        "Amount due",
                        "Sum",
                        "TOTAL USD",
                        "To pay",
                        "Grand total",
                        "SUM EUR",
                        "Balance due",
                    )
                ),
                receipt.total,
            )
        )
        if receipt.given:
            rows.append((rng.choice(("Cash", "Given", "Paid")), receipt.write(receipt.given)))
            rows.append(("Change", receipt.change))
        elif rng.random() < 0.4:
            rows.append((rng.choice(("Cash", "Card", "Visa")), receipt.total))
    table: list[tuple[str, ...]] = [(text,) for text in shown]
    counted = []
    for key, value in rows:
        amount = f"{rng.randint(1, 4)} x " if rng.random() < 0.1 and key in receipt.items else ""
        counted.append((amount + key, value))
    table += lay_out_prices(draw_price_layout(rng), counted)
    if rng.random() < 0.3:
        table.append((rng.choice(_THANKS),))
    return [line for y, row in enumerate(table) for line in place_row(y, *row)]


def _ask_for_prices(rng: random.Random, record: Record, receipt: _Receipt) -> None:
    for item, price in rng.sample(receipt.rows, min(3, len(receipt.items))):
        question = pick(rng, "How much is the {}?", "What is the price of {}?", "How much does the {} cost?",
                        "What does {} cost?", "What is the {}?", "Price of {}?",
                        "How much did the {} cost?")  # fmt: skip
        name = item if rng.random() < 0.5 else item.lower()
        answer = pick(rng, f"The {name} costs {price}.", f"The {name} is {price}.", f"It costs {price}.")
        record.ask(question.format(name), answer)
    if receipt.total:
        question = pick(rng, "What is the total?", "How much is the total?", "What is the total amount?",
                        "How much is it in all?", "What is the sum?", "How much was paid altogether?",
                        "What does everything cost together?", "What is the final amount?",
                        "How much do I have to pay?", "What did it cost?")  # fmt: skip
        answer = pick(rng, f"The total is {receipt.total}.", f"The total amount is {receipt.total}.")
        record.turns += [(question, answer)] * 2  # it is what people ask most, so it is kept more often
    dearest, cheapest = (receipt.cents.index(most(receipt.cents)) for most in (max, min))
    item, price = receipt.rows[dearest]
    question = pick(rng, "What is the most expensive item?", "Which item costs the most?")
    record.ask(question, f"The {item} costs the most, {price}.")
    item, price = receipt.rows[cheapest]
    question = pick(rng, "What is the cheapest item?", "Which item costs the least?")
    record.ask(question, f"The {item} costs the least, {price}.")


def _ask_for_head(rng: random.Random, record: Record, receipt: _Receipt) -> None:
    if receipt.shop:
        question = pick(rng, "What is the name of the shop?", "Which store is this from?",
                        f"Which shop is the {receipt.kind} from?", "Where was this bought?",
                        f"Where is this {receipt.kind} from?", "What is the shop called?")  # fmt: skip
        record.ask(question, f"It is from {receipt.shop}.")
    if receipt.date:
        question = pick(rng, "What is the date?", "When was this?", "What date is on the receipt?")
        record.ask(question, f"The date is {receipt.date}.")
    if receipt.address:
        question = pick(rng, "What is the address?", "In which street is it?", f"Where is the {receipt.kind} from?")
        record.ask(question, f"The address is {receipt.address}.")
    elif rng.random() < 0.5:
        record.ask("What is the address?", say_missing(rng, "address"))
    if receipt.kind == "receipt":
        question = pick(rng, "What is the name of the cashier?", "Who is the cashier?", "Who served the customer?")
        missing = say_missing(rng, "cashier")
        record.ask(question, f"The cashier is {receipt.cashier}." if receipt.cashier else missing)
        question = pick(rng, "How much change was given?", "What is the change?", "How much change was there?",
                        "How much change did the customer get?", "How much was given back?")  # fmt: skip
        record.ask(question, f"The change is {receipt.change}." if receipt.change else say_missing(rng, "change"))
        if receipt.given:
            question = pick(rng, "How much cash was given?", "How much money was handed over in cash?")
            record.ask(question, f"{receipt.write(receipt.given)} was paid.")
    if receipt.phone:
        question = pick(rng, "What is the phone number?", "What is the telephone number?")
        record.ask(question, f"The phone number is {receipt.phone}.")
    else:
        question = pick(rng, "What is the phone number?", "Is there a telephone number?")
        record.ask(question, "I see no telephone number in the image.")


def _ask_for_items(rng: random.Random, record: Record, receipt: _Receipt) -> None:
    count, kind = len(receipt.items), receipt.kind
    record.ask(pick(rng, "How many items are listed?", "How many items are there?"), f"There are {count} items.")
    known = record.description.lower()
    other = draw_absent(rng, draw_item, known)
    record.ask(f"How much is the {other.lower()}?", f"I see no {other.lower()} in the image.")
    if rng.random() < 0.5:
        record.ask(f"Is there {other} on the {kind}?", f"No, there is no {other} on the {kind}.")
    else:
        item = receipt.items[0]
        record.ask(f"Is there {item} on the {kind}?", f"Yes, {item} is on the {kind}.")
