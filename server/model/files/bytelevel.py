"""The 256 letters in which GPT-2 style vocabularies spell raw bytes.

Source: `bytes_to_unicode` in OpenAI's GPT-2 encoder: printable Latin-1 characters stand
for themselves, every other byte for the next letter from U+0100 on.
"""


def _letters() -> dict[str, int]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    letters.update({chr(0x100 + index): byte for index, byte in enumerate(others)})
    return letters


BYTE_OF_LETTER = _letters()
