"""Somebody else's text, made harmless where people or terminals read it."""


def printable(text: str) -> str:
    """Take out of somebody else's text what a terminal, a log or a mail would act on."""
    return "".join(char if char.isprintable() else "?" for char in text)
