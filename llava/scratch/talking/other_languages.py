"""Questions in other languages than English, to which the only honest answer is that the model knows none of them."""

from __future__ import annotations

import random

ANSWER = "I only understand English."

# By language: questions, some about a noun, and nouns that fit all of these in case and article.
_ASKED: dict[str, tuple[str, str]] = {
    "German": (
        "Was ist das?;Was ist auf dem Bild zu sehen?;Beschreibe das Bild.;Was steht auf dem Schild?;Lies den Text vor.;"
        "Welche Farbe hat {}?;Wo ist {}?;Siehst du {}?;Wie viele Dinge sind auf dem Bild?;Wie hoch ist die Summe?;"
        "Wer hat dieses Foto gemacht?;Ist das ein Hund oder eine Katze?;Kannst du mir helfen?;Was zeigt das Diagramm?",
        "das Auto;das Haus;das Tier;das Buch;das Fenster;das Fahrrad",
    ),
    "French": (
        "Qu'est-ce que c'est ?;Que voit-on sur cette image ?;Décris cette image.;Qu'est-ce qui est écrit ?;"
        "Lis le texte.;De quelle couleur est {} ?;Où est {} ?;Vois-tu {} ?;Combien d'objets y a-t-il ?;"
        "Quel est le total ?;Qui a pris cette photo ?;Est-ce un chien ou un chat ?;Peux-tu m'aider ?",
        "la voiture;la maison;le chat;le livre;la fleur;le vélo",
    ),
    "Spanish": (
        "¿Qué es esto?;¿Qué hay en la imagen?;Describe la imagen.;¿Qué dice el cartel?;Lee el texto.;"
        "¿De qué color es {}?;¿Dónde está {}?;¿Ves {}?;¿Cuántos objetos hay?;¿Cuál es el total?;"
        "¿Quién tomó esta foto?;¿Es un perro o un gato?;¿Puedes ayudarme?;¿Qué muestra el gráfico?",
        "el coche;la casa;el gato;el libro;la flor;la mesa",
    ),
    "Italian": (
        "Che cos'è questo?;Cosa si vede nell'immagine?;Descrivi l'immagine.;Che cosa c'è scritto?;Leggi il testo.;"
        "Di che colore è {}?;Dov'è {}?;Vedi {}?;Quanti oggetti ci sono?;Qual è il totale?;"
        "Chi ha scattato questa foto?;È un cane o un gatto?;Puoi aiutarmi?;Che cosa mostra il grafico?",
        "la macchina;la casa;il gatto;il libro;il fiore;la sedia",
    ),
    "Portuguese": (
        "O que é isto?;O que há na imagem?;Descreva a imagem.;O que está escrito na placa?;Leia o texto.;"
        "De que cor é {}?;Onde está {}?;Você vê {}?;Quantos objetos existem?;Qual é o total?;"
        "Quem tirou esta foto?;É um cachorro ou um gato?;Você pode me ajudar?;O que mostra o gráfico?",
        "o carro;a casa;o gato;o livro;a flor;a mesa",
    ),
    "Dutch": (
        "Wat is dit?;Wat staat er op de afbeelding?;Beschrijf de afbeelding.;Wat staat er op het bord?;Lees de tekst.;"
        "Welke kleur heeft {}?;Waar is {}?;Zie je {}?;Hoeveel dingen zijn er?;Wat is het totaal?;"
        "Wie heeft deze foto gemaakt?;Is het een hond of een kat?;Kun je me helpen?",
        "de auto;het huis;de kat;het boek;de bloem;de fiets",
    ),
    "Polish": (
        "Co to jest?;Co widać na obrazku?;Opisz obrazek.;Co jest napisane na znaku?;Przeczytaj tekst.;"
        "Jakiego koloru jest {}?;Gdzie jest {}?;Ile jest obiektów?;Jaka jest suma?;Kto zrobił to zdjęcie?;"
        "Czy to pies, czy kot?;Czy możesz mi pomóc?",
        "samochód;dom;kot;stół;kwiat;rower",
    ),
    "Russian": (
        "Что это?;Что на картинке?;Опиши картинку.;Что написано на знаке?;Прочитай текст.;"
        "Какого цвета {}?;Где {}?;Сколько здесь предметов?;Какая сумма?;Кто сделал это фото?;"
        "Это собака или кошка?;Ты можешь мне помочь?",
        "машина;дом;кошка;книга;цветок;стол",
    ),
    "Turkish": (
        "Bu nedir?;Resimde ne var?;Resmi tarif et.;Tabelada ne yazıyor?;Metni oku.;{} ne renk?;{} nerede?;"
        "Kaç nesne var?;Toplam ne kadar?;Bu fotoğrafı kim çekti?;Bana yardım eder misin?",
        "Araba;Ev;Kedi;Kitap;Çiçek;Masa",
    ),
    "Chinese": (
        "这是什么？;图片里有什么？;请描述这张图片。;牌子上写着什么？;请读出文字。;{}是什么颜色？;{}在哪里？;"
        "有几个物体？;总价是多少？;这张照片是谁拍的？;这是狗还是猫？;你能帮我吗？;图表显示了什么？",
        "汽车;房子;猫;书;花;桌子",
    ),
    "Japanese": (
        "これは何ですか？;画像には何がありますか？;この画像を説明してください。;何と書いてありますか？;"
        "文字を読んでください。;{}は何色ですか？;{}はどこですか？;いくつありますか？;合計はいくらですか？;"
        "これは犬ですか、猫ですか？;手伝ってくれますか？",
        "車;家;猫;本;花;机",
    ),
    "Korean": (
        "이것은 무엇입니까?;사진에 무엇이 있습니까?;이 사진을 설명해 주세요.;뭐라고 쓰여 있습니까?;글을 읽어 주세요.;"
        "{} 색깔이 뭐예요?;{} 어디에 있어요?;몇 개가 있습니까?;합계가 얼마입니까?;도와줄 수 있어요?",
        "자동차;집;고양이;책;꽃;책상",
    ),
    "Arabic": (
        "ما هذا؟;ماذا يوجد في الصورة؟;صف الصورة.;ماذا كتب على اللافتة؟;اقرأ النص.;ما لون {}؟;أين {}؟;"
        "كم عدد الأشياء؟;ما هو المجموع؟;هل يمكنك مساعدتي؟",
        "السيارة;البيت;القطة;الكتاب;الزهرة;الطاولة",
    ),
    "Hindi": (
        "यह क्या है?;तस्वीर में क्या है?;तस्वीर का वर्णन करो।;क्या लिखा है?;{} का रंग क्या है?;{} कहाँ है?;कितनी चीज़ें हैं?;"
        "क्या आप मेरी मदद कर सकते हैं?",
        "गाड़ी;घर;किताब;मेज़",
    ),
}  # fmt: skip
# Questions that no training asks, some in languages that it never shows.
HELD_OUT = tuple(
    "Was macht der Mann?;Wie heißt diese Stadt?;Que fait cette femme ?;Quelle heure est-il ?;¿Qué hace el niño?;"
    "¿Qué hora es?;Che tempo fa?;Che animale è questo?;Que animal é este?;Wat doet de vrouw?;Jakie to zwierzę?;"
    "Что делает этот человек?;Bu hayvan nedir?;这个人在做什么？;この動物は何ですか？;이 동물은 무엇입니까?;"
    "Vad är det här?;Mitä kuvassa on?;Hvad står der på skiltet?;Що це таке?;Co je na obrázku?;Τι είναι αυτό;".split(";")
)


def ask_in_other_language(rng: random.Random) -> tuple[str, str]:
    """A question in one of fourteen languages, and the answer that only English is understood."""
    questions, nouns = (choices.split(";") for choices in _ASKED[rng.choice(sorted(_ASKED))])
    question = rng.choice(questions).format(rng.choice(nouns))
    # Many type without capitals, accents aside, and without the mark at the end.
    if rng.random() < 0.2:
        question = question.rstrip("?？.。؟ ")
    return (question.lower() if rng.random() < 0.15 else question), ANSWER
