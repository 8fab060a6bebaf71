"""Which kinds of things are animals, foods, vehicles and so on."""

from __future__ import annotations

ANIMALS = frozenset(
    """animal dog puppy cat wolf fox bear monkey ape rabbit hare squirrel mouse rat hamster horse zebra donkey
    cow bull sheep goat pig deer antelope bison camel llama elephant rhinoceros hippopotamus whale dolphin seal
    kangaroo bat rodent weasel otter bird chicken duck goose swan owl parrot penguin eagle pigeon turkey fish shark frog
    lizard snake turtle crocodile dinosaur reptile amphibian insect butterfly moth beetle bee ant fly dragonfly
    grasshopper caterpillar spider scorpion crab crustacean snail worm jellyfish starfish coral""".split()
) | {"big cat"}
FOODS = frozenset(
    """fruit apple nut vegetable pumpkin bread cake cookie pastry pizza sandwich soup meat sausage cheese candy
    chocolate dessert pasta egg food dish sauce drink wine mushroom""".split()
) | {"ice cream", "cup of coffee"}
VEHICLES = frozenset(
    """vehicle car truck bus van motorcycle bicycle train cart boat ship sailboat airplane helicopter airship aircraft
    rocket spacecraft tractor sled""".split()
) | {"race car", "railway car"}
PLANTS = frozenset("plant flower tree leaf cactus grass mushroom".split())
BUILDINGS = frozenset("building house church castle palace temple shop tower".split())
CLOTHES = frozenset(
    """shirt sweater dress skirt coat jacket suit hat cap helmet shoe boot sandal sock glove scarf tie mask swimsuit
    underwear apron""".split()
) | {"piece of clothing"}
TOOLS = frozenset("tool hammer saw axe screwdriver drill shovel".split())
FURNITURE = frozenset("chair table desk bed sofa cabinet shelf".split()) | {"piece of furniture"}
INSTRUMENTS = frozenset("guitar drum piano trumpet violin flute accordion".split()) | {"musical instrument"}
DEVICES = frozenset(
    "computer keyboard phone camera television radio speaker microphone printer photocopier calculator".split()
) | {"electronic device", "household appliance", "computer mouse", "remote control", "coffee maker"}
GROUPS = {
    "animal": ANIMALS,
    "food": FOODS,
    "vehicle": VEHICLES,
    "plant": PLANTS,
    "building": BUILDINGS,
    "clothes": CLOTHES,
    "tool": TOOLS,
    "furniture": FURNITURE,
    "instrument": INSTRUMENTS,
    "device": DEVICES,
}
OUTDOORS = frozenset(
    """car truck bus van motorcycle bicycle train boat ship airplane airship aircraft rocket tractor sled parachute
    building house church castle palace tower bridge fence fountain monument mailbox patio ride
    mountain lake valley beach cliff promontory sandbar geyser
    elephant zebra bison antelope hippopotamus camel whale shark fox wolf bear eagle""".split()
) | {"race car", "railway car", "construction crane", "traffic light"}
"""Kinds of things that are hardly ever indoors."""
INDOORS = frozenset(
    """table desk bed sofa cabinet piano computer keyboard television printer photocopier radio oven stove refrigerator
    bathtub sink curtain lamp pillow quilt""".split()
) | {"piece of furniture", "household appliance", "coffee maker", "computer mouse", "remote control"}
"""Kinds of things that are hardly ever outdoors."""
