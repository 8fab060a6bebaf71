"""Everyday kinds of things ("bird", "vehicle"): the word an answer falls back to where the exact name is unsure."""

from __future__ import annotations

from llava.scratch.things.wordnet import WordNet

# The word of an answer, and where WordNet's first sense of it is another one, the noun and the number of the sense.
KINDS = """
animal, dog, puppy, cat=cat#1, big cat, wolf, fox, bear, monkey=monkey#1, ape, rabbit=rabbit#1, hare, squirrel,
mouse, rat, hamster, horse, zebra, donkey=donkey#2, cow=cattle, bull, sheep, goat, pig=swine, deer, antelope, camel,
llama, elephant, rhinoceros, hippopotamus, whale=whale#2, dolphin=dolphin#2, seal=seal#9, kangaroo, bat=bat#1,
rodent, bird, chicken=domestic_fowl, duck=duck#1, goose, swan, owl, parrot, penguin, eagle, pigeon, turkey=turkey#1,
fish=fish#1, shark, frog, lizard, snake, turtle=turtle#2, crocodile=crocodilian_reptile, dinosaur, reptile,
amphibian=amphibian#3, insect, butterfly, moth, beetle, bee, ant, fly=fly#1, dragonfly, grasshopper, spider,
scorpion=scorpion#3, crab=crab#1, crustacean, snail, worm, jellyfish, starfish, coral=coral#4, plant=plant#2,
flower=flower#1, tree, leaf, cactus, mushroom=fungus, grass=grass#1, fruit=edible_fruit, apple=apple#1, nut=nut#1,
vegetable=vegetable#1, bread, cake=cake#3, cookie, pastry, pizza, sandwich, soup, meat, sausage, cheese, candy,
chocolate=chocolate#2, ice cream, dessert, pasta=pasta#2, egg=egg#2, food=food#1, dish=dish#2, sauce,
drink=beverage, wine, piece of clothing=clothing, shirt, sweater, dress=dress#1, skirt=skirt#2, pair of
trousers=trouser, coat, jacket, suit=suit#1, hat, cap=cap#1, helmet=helmet#2, shoe, boot=boot#1, sandal=sandal,
sock, glove=glove#2, scarf, tie=necktie, mask, swimsuit, underwear=undergarment, apron, crown=crown#4,
glasses=spectacles, piece of jewelry=jewelry, ring=ring#8, necklace, watch=watch#1, bag=bag#1, handbag=bag#4,
wallet, piece of furniture=furniture, chair, seat=seat#3, table=table#2, desk, bed, sofa, cabinet, shelf,
bench=bench#1, lamp, lantern, light=light#2, curtain, rug, pillow, blanket=blanket#1, towel, mirror, cup=cup#1,
glass=glass#2, bottle, jar, jug, bowl=bowl#1, plate=plate#4, pot=pot#1, pan=pan#1, vase, spoon, fork=fork#1, knife,
stove, oven, refrigerator, kettle, teapot, coffee maker, household appliance=home_appliance, sink=sink#1, bathtub,
toilet=toilet#2, tool=tool#1, hammer=hammer#2, saw=saw#2, axe, screwdriver, drill=drill#1, shovel, brush=brush#2,
broom, rope, chain=chain#3, ladder, lock=lock#1, key, nail=nail#2, screw=screw#4, hook=hook#4, pen, pencil,
scissors, box=box#1, basket, bucket, barrel=barrel#2, can=can#1, container=container, bin=bin, computer, keyboard,
screen=screen#3, phone=telephone, camera, television=television_receiver, radio=radio_receiver, clock,
speaker=loudspeaker, microphone, printer=printer#2, machine=machine#1, electronic device=electronic_equipment,
device, measuring instrument, scale=scale#7, telescope, microscope, musical instrument, guitar, drum=drum#1, piano,
trumpet=cornet#1, violin, flute, accordion, bell=bell#1, vehicle, car, race car=racer#2, truck, bus, van=van#5,
motorcycle, bicycle, train, railway car=railcar#1, cart, boat, ship, sailboat=sailing_vessel, airplane, helicopter,
airship, aircraft, rocket=rocket#1, spacecraft, tractor, sled, wheel=wheel#1, building, house, church=church#2,
castle, palace, temple=temple#1, shop, tower, bridge=bridge#1, fence, wall=wall#1, door, window, roof, tent,
monument=memorial, statue, fountain, toy, doll, ball, game equipment=game_equipment, kite=kite#3, sports equipment,
racket=racket#4, balloon, gun, weapon, sword, shield, cannon, book=book#2, paper=paper#1, letter, sign=sign#2, map,
flag, coin, money, candle, light bulb, umbrella, medal, trophy, cross=cross#1, fire=fire#3, cloud=cloud#2,
star=star#1, moon, sun, planet, mountain, volcano, beach, island, lake, sea, cliff, geyser, snow, rainbow, person,
man=man#1, woman=woman#1, child=child#1, baby=baby#1, face=face#1, hand=hand#1, foot=foot#1, eye=eye#1,
heart=heart#2, bone, tooth, skull, medicine=medicine#2, medical instrument=medical_instrument, feather,
shell=shell#3, rock=rock#1, gem=jewel, fabric, knot=knot#2, gift, button=button#2, antenna=antenna#1
"""


UNLIKELY = {"person", "device", "tree", "plant", "fabric", "island", "container", "meat", "wine", "tool", "weapon"}
"""Kinds that a noun gets only where none of its senses has another one: a printer is a machine and not a person."""


class Kinds:
    """The kind of a noun, by the nearest of its WordNet hypernyms that is in the list."""

    def __init__(self, wordnet: WordNet) -> None:
        self.wordnet = wordnet
        self.words: dict[int, str] = {}
        for entry in KINDS.replace("\n", " ").split(","):
            word, _, noun = entry.strip().partition("=")
            noun, _, sense = (noun or word).partition("#")
            self.words[wordnet.senses[noun.replace(" ", "_")][int(sense or 1) - 1]] = word

    def of_synset(self, offset: int) -> str | None:
        """The kind of a synset, or None where no listed word is among its hypernyms."""
        return next(
            (self.words[ancestor] for ancestor in self.wordnet.ancestors(offset) if ancestor in self.words), None
        )

    def of_noun(self, phrase: str) -> str | None:
        """The kind of a noun phrase by its most frequent likely sense; by its last words where it is unknown."""
        words = phrase.split()
        for start in range(len(words)):
            senses = self.wordnet.find(" ".join(words[start:]))
            kinds = [kind for offset in senses if (kind := self.of_synset(offset))]
            if kinds:
                return next((kind for kind in kinds if kind not in UNLIKELY), kinds[0])
        return None
