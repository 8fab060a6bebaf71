"""What the drawings of edition f share: its faces and its colours."""

from __future__ import annotations

from benchmarks.talking_editions import Color

FACES = {
    "culmus": (
        *("NachlieliCLM-Light.otf", "NachlieliCLM-Bold.otf", "FrankRuehlCLM-Medium.ttf", "FrankRuehlCLM-Bold.ttf"),
        *("MiriamMonoCLM-Book.ttf", "SimpleCLM-Bold.ttf"),
    ),
    "fonts-ukij-uyghur": ("UKIJInichke.ttf", "UKIJInichkeb.ttf", "UKIJJunu.ttf", "UKIJMoyQ.ttf", "UKIJQolyazma.ttf"),
    "fonts-unfonts-extra": ("UnVada.ttf", "UnYetgul.ttf"),
    "fonts-meera-inimai": ("MeeraInimai-Regular.ttf",),
    "fonts-ipaexfont-gothic": ("ipaexg.ttf",),
    "fonts-monlam": ("Monlam Uni OuChan2.ttf",),
    "fonts-sil-mondulkiri": ("Mondulkiri-R.ttf", "Mondulkiri-B.ttf"),
    "fonts-sil-ezra": ("SILEOT.ttf",),
    "fonts-takao-mincho": ("TakaoPMincho.ttf",),
    "fonts-lohit-deva": ("Lohit-Devanagari.ttf",),
    "fonts-unikurdweb": ("Unikuweb.ttf",),
    "fonts-sjfonts": ("SteveHand.ttf", "Delphine.ttf"),
    "fonts-smc-karumbi": ("Karumbi-Regular.ttf",),
    "fonts-yozvox-yozfont-standard-kana": ("YOzBSP.ttf", "YOzRSP.ttf"),
    "fonts-teluguvijayam": ("ramabhadra.ttf", "PottiSreeramulu.ttf", "NATS.ttf", "Ramaraja-Regular.ttf"),
    "fonts-sil-scheherazade": ("Scheherazade-Regular.ttf", "Scheherazade-Bold.ttf"),
    "fonts-farsiweb": ("nazli.ttf", "nazlib.ttf"),
    "fonts-senamirmir-washra": ("goffer.ttf", "washrab.ttf"),
    "fonts-le-murmure": ("le-murmure.otf",),
    "fonts-rampart": ("RampartOne-Regular.ttf",),
    "fonts-cegui": ("IMFePIrm29P.ttf", "GreatVibes-Regular.ttf"),
    "fonts-gamaliel": ("Gamaliel.otf",),
    "fonts-pc": ("Px_IBM_VGA8.ttf",),
}
PRINT = list(FACES)[:9]
SCREEN = PRINT[:3]
HAND = ["fonts-smc-karumbi", "fonts-yozvox-yozfont-standard-kana"]  # others of their kind have hardly any spaces
SHOWN = ["fonts-teluguvijayam", "fonts-le-murmure", "culmus", "fonts-ukij-uyghur", "fonts-unfonts-extra"]
RICH: tuple[Color, ...] = ((178, 34, 44), (20, 96, 150), (22, 110, 82), (196, 84, 12), (96, 44, 110), (34, 40, 52))
PALE: tuple[Color, ...] = ((250, 240, 226), (232, 242, 246), (238, 246, 234), (248, 234, 236), (246, 246, 242))
