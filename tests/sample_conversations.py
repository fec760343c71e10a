"""A hundred conversations of a shop's agent, made from a seed: the same bytes at each run, on each machine.

`python tests/sample_conversations.py` prints them, a line each. They have what agents' histories have: tool calls alone
and in parallel, content in parts, long results of tools, several languages, users with several conversations.
`real_conversations` is what lies beside the repository in our own workshop; a newcomer does not have it.
"""

import json
import random
import sys
from pathlib import Path

SEED = 20_261_129
COUNT = 100
FIRST = "shop:order-000"
FIRST_USER = "mia_li_3668"
REAL = Path(__file__).parents[2] / "shared" / "data" / "airline-conversations.jsonl"
WITHOUT_REAL = f"the conversations of real agents are not here: {REAL.name} belongs into ../shared/data"

POLICY = """# The shop's assistant

You help people with what they ordered. Look an order up before you speak of it, and ask before you change one.

## Returns
- Within 30 days, unused, in the box that it came in. A 🎧 that was worn stays with whoever wore it.
- Money goes back the way it came; it takes three to five days.
"""
PRODUCTS = ("kettle", "lámpara", "Fahrrad", "傘", "vélo", "سجادة", "चश्मा", "guitarra", "тетрадь", "🎧 headset")
LANGUAGES = {
    "en": ("Where is my order?", "Could I change the address?", "It is on its way.", "Thank you so much! 👍"),
    "de": ("Wo bleibt meine Bestellung?", "Kann ich die Größe ändern?", "Sie ist unterwegs.", "Schöne Grüße, danke!"),
    "es": ("¿Dónde está mi pedido?", "¿Puedo cambiar la dirección?", "Está en camino.", "¡Muchísimas gracias!"),
    "fr": ("Où est ma commande ?", "Puis-je changer l'adresse ?", "Elle est en route.", "Merci, à bientôt !"),
    "ja": ("注文はどこですか。", "住所を変更できますか。", "発送済みです。", "ありがとうございます🙏"),
    "ar": ("أين طلبي؟", "هل يمكنني تغيير العنوان؟", "إنه في الطريق.", "شكرا جزيلا"),
    "hi": ("मेरा ऑर्डर कहाँ है?", "क्या मैं पता बदल सकता हूँ?", "वह रास्ते में है।", "धन्यवाद"),
    "ru": ("Где мой заказ?", "Можно изменить адрес?", "Он уже в пути.", "Большое спасибо!"),
}


class Writer:
    """Writes one conversation, message by message.

    Args:
        number: which of the hundred.
        chance: where everything that differs comes from.
    """

    def __init__(self, number, chance):
        self.number = number
        self.chance = chance
        self.user = FIRST_USER if number in {0, 1} else f"user_{number % 40:02}"
        self.asks, self.wishes, self.answers, self.thanks = LANGUAGES[chance.choice(sorted(LANGUAGES))]
        self.messages = []

    def conversation(self):
        """Return the conversation, as a line of an export has it."""
        if self.number % 5 != 4:  # one in five has none
            self.say("system", POLICY)
        self.say("user", self.parts() if self.number % 7 == 3 else self.asks)
        self.call(("get_user_details", {"user_id": self.user}))
        self.say("assistant", self.answers)
        for _ in range(self.chance.randint(1, 9)):
            self.turn()
        return {
            "conversation_id": f"shop:order-{self.number:03}",
            "user_id": self.user,
            "metadata": {"source": "sample", "number": self.number, "rating": self.chance.choice([0.5, 1, None])},
            "messages": self.messages,
        }

    def turn(self):
        """Add a turn: a wish, one or several calls or none, an answer."""
        self.say("user", self.chance.choice([self.asks, self.wishes, self.thanks]))
        calls = self.chance.choice([0, 1, 1, 2, 3])
        if calls:
            self.call(*(("get_order", {"order": self.chance.randrange(10**6), "full": True}) for _ in range(calls)))
        self.say("assistant", self.answers)

    def say(self, role, content):
        """Add a message that only says something."""
        self.messages.append({"role": role, "content": content})

    def parts(self):
        """Return content in parts, text and a picture."""
        picture = {"type": "image_url", "image_url": {"url": f"https://shop.example/receipts/{self.number}.png"}}
        return [{"type": "text", "text": self.asks}, picture]

    def call(self, *functions):
        """Add a message that calls functions, all at once, and their results."""
        calls = [
            {
                "id": f"call_{self.number:03}_{len(self.messages):02}_{place}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
            for place, (name, arguments) in enumerate(functions)
        ]
        self.messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        for call, (name, arguments) in zip(calls, functions, strict=True):
            result = self.result(arguments)
            self.messages.append({"role": "tool", "content": result, "tool_call_id": call["id"], "name": name})

    def result(self, arguments):
        """Return what a tool answers: a few lines, and now and then some ten thousand characters."""
        length = self.chance.choice([1, 1, 2, 3, 5, 200])
        items = [
            {"product": self.chance.choice(PRODUCTS), "price": self.chance.randrange(1, 10**5) / 100}
            for _ in range(length)
        ]
        return json.dumps({**arguments, "status": "shipped", "items": items}, ensure_ascii=False)


def sample_conversations():
    """Return the conversations, each as a line of an export has it."""
    chance = random.Random(SEED)
    return [Writer(number, chance).conversation() for number in range(COUNT)]


def real_conversations():
    """Return the conversations of real agents, likewise; an empty list where they are not beside the repository."""
    if not REAL.is_file():
        return []
    return [json.loads(line) for line in REAL.read_text(encoding="utf-8").splitlines()]


def lines(conversations):
    """Return conversations as JSON Lines."""
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in conversations)


if __name__ == "__main__":
    sys.stdout.write(lines(sample_conversations()))
