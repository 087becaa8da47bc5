"""Invented names. Any likeness to living persons is chance: first and last names are drawn independently."""

from __future__ import annotations

from typing import Final

__all__ = ["FEMALE", "LANGUAGES", "LAST", "MALE"]

FEMALE: Final = (
    "Amara", "Beatriz", "Chloe", "Daniela", "Elif", "Farah", "Grace", "Hannah", "Ines", "Jasmine", "Keiko", "Leila",
    "Maya", "Nadia", "Olivia", "Priya", "Rosa", "Sofia", "Thuy", "Valentina", "Willa", "Ximena", "Yara", "Zoë",
)  # fmt: skip
MALE: Final = (
    "Andre", "Benjamin", "Caleb", "Diego", "Elias", "Felix", "Gabriel", "Hamza", "Isaac", "Jamal", "Kofi", "Liam",
    "Mateo", "Noah", "Omar", "Pavel", "Quentin", "Rafael", "Samuel", "Tomás", "Umar", "Victor", "Wei", "Yusuf",
)  # fmt: skip
LAST: Final = (
    "Abara", "Bergström", "Castillo", "Delgado", "Eberhart", "Fontaine", "Greenwood", "Haddad", "Ibarra", "Jankowski",
    "Kimura", "Lindqvist", "Mbeki", "Nakamura", "O'Rourke", "Petrov", "Quispe", "Rahman", "Salazar", "Thornbury",
    "Ueda", "Vasquez", "Whitfield", "Xu", "Yilmaz", "Zielinski",
)  # fmt: skip
LANGUAGES: Final = ("Spanish", "Vietnamese", "Arabic", "Korean", "Polish")
