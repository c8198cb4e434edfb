"""The deterministic parser (runbook 000, line 47): reads the fields of a CV in plain text by rules, without a network.

The same text gives the same fields, whenever and wherever. It guesses nothing: what no rule finds is listed in
`missing`, for a person to fill in and confirm. Time and memory are bounded by the text's length, whatever it holds:
every repetition in a pattern has an end.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

VERSION = "p1"  # changes with any rule
MAX_CHARS = 200_000
MAX_LINE = 400
MAX_LINES_OF_SECTION = 200
MAX_SKILLS = 100
MAX_DATES = 200
WANTED = ("name", "email", "phone", "skills")  # what an application cannot do without

_EMAIL = re.compile(r"(?<![\w.%+-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}(?![\w-])")
_PHONE = re.compile(r"(?<![\w+])\+?\(?\d[\d ()./-]{5,22}\d(?!\w)")
_PHONE_LABEL = re.compile(r"(?i)\b(?:phone|tel|telephone|mobile|cell)\b")
_NAME_LABEL = re.compile(r"(?i)^(?:full )?name\s{0,5}[:\-]\s{0,5}(.{1,80})$")
_NAME_WORD = re.compile(r"[^\W\d_][^\W\d_'’.-]{0,40}(?:['’.-][^\W\d_]{0,40}){0,3}\Z")
_BULLET = re.compile(r"^[\s•·▪*o–-]{1,6}(?=\s|\w)")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = re.compile(
    r"(?<![\w./-])(?:"
    r"(?P<iso>(?:19|20)\d\d-\d\d-\d\d)"
    r"|(?P<dots>\d{1,2}\.\d{1,2}\.(?:19|20)\d\d)"
    r"|(?P<iso_month>(?:19|20)\d\d-(?:0[1-9]|1[0-2]))"
    r"|(?P<month_year>(?:0?[1-9]|1[0-2])/(?:19|20)\d\d)"
    r"|(?P<word>(?:[A-Za-z]{3,9}))\.? {1,3}(?P<word_year>(?:19|20)\d\d)"
    r")(?![\w/])"
)
_HEADINGS: Mapping[str, str] = {
    "skills": "skills",
    "technical skills": "skills",
    "key skills": "skills",
    "core competencies": "skills",
    "experience": "experience",
    "work experience": "experience",
    "professional experience": "experience",
    "employment": "experience",
    "employment history": "experience",
    "education": "education",
    "education and training": "education",
    "languages": "languages",
    "certifications": "certifications",
    "certificates": "certifications",
    "summary": "summary",
    "profile": "summary",
    "about me": "summary",
    "references": "references",
    "interests": "interests",
    "projects": "projects",
}
_TITLES = frozenset({"curriculum vitae", "cv", "resume", "résumé"})


@dataclass(frozen=True, slots=True)
class Parsed:
    """What was read. A field that was not found is empty. `dates` are ISO, `2024-03` where no day is said."""

    name: str
    email: str
    phone: str
    dates: tuple[str, ...]
    skills: tuple[str, ...]
    sections: Mapping[str, tuple[str, ...]]

    @property
    def missing(self) -> tuple[str, ...]:
        """The fields that a person must fill in."""
        return tuple(field for field in WANTED if not getattr(self, field))

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all was found: the text is no CV, or not one that these rules can read."""
        return len(self.missing) == len(WANTED) and not self.sections

    def to_json(self) -> str:
        """Compact, with sorted keys: the same fields are the same bytes. Every field waits for a person's yes."""
        return json.dumps(
            {
                "parser": VERSION,
                "name": self.name,
                "email": self.email,
                "phone": self.phone,
                "dates": list(self.dates),
                "skills": list(self.skills),
                "sections": {name: list(lines) for name, lines in self.sections.items()},
                "missing": list(self.missing),
                "is_confirmed": False,
            },
            ensure_ascii=False,
            separators=(",", ":"),
            sort_keys=True,
        )


def text_of(content: bytes) -> str | None:
    """The document's text, or None where it is not plain text in UTF-8: a PDF, a picture, another encoding."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\x00" in text else text


def parse(text: str) -> Parsed:
    """The fields of the first `MAX_CHARS` characters."""
    lines = [_clean(line) for line in text[:MAX_CHARS].splitlines()]
    sections = _sections(lines)
    whole = "\n".join(lines)
    email = _EMAIL.search(whole)
    return Parsed(
        name=_name(lines),
        email="" if email is None else email.group().lower(),
        phone=_phone(lines),
        dates=tuple(_dates(whole)),
        skills=tuple(_skills(sections.get("skills", ()))),
        sections=sections,
    )


def _clean(line: str) -> str:
    composed = unicodedata.normalize("NFKC", line[:MAX_LINE])[:MAX_LINE]  # one letter may become eighteen
    printable = "".join(letter if letter.isprintable() else " " for letter in composed)
    return " ".join(printable.split())


def _heading(line: str) -> str:
    """The section that the line begins; empty if it is no heading."""
    return _HEADINGS.get(line.rstrip(":").strip().lower(), "")


def _sections(lines: list[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines:
        heading = _heading(line)
        if heading:
            current = found.setdefault(heading, [])
        elif line and current is not None and len(current) < MAX_LINES_OF_SECTION:
            current.append(_BULLET.sub("", line).strip())
    return {name: tuple(kept) for name, kept in found.items() if kept}


def _name(lines: list[str]) -> str:
    """What is labelled so, else the first of the first lines that can be nothing else."""
    top = [line for line in lines if line][:10]
    for line in top:
        labelled = _NAME_LABEL.match(line)
        if labelled is not None and _is_name(labelled.group(1)):
            return labelled.group(1).strip()
    for line in top:
        if _heading(line):
            return ""
        if _is_name(line):
            return line
    return ""


def _is_name(text: str) -> bool:
    words = text.split()
    return (
        2 <= len(words) <= 5
        and text.lower() not in _TITLES
        and all(_NAME_WORD.match(word) for word in words)
        and all(word[0].isupper() for word in (words[0], words[-1]))
    )


def _phone(lines: list[str]) -> str:
    """The first number that is written as one: with a plus, or labelled, or of ten digits and more."""
    for line in lines:
        for found in _PHONE.finditer(line):
            digits = re.sub(r"\D", "", found.group())
            if not 7 <= len(digits) <= 15 or _DATE.search(found.group()) or _is_years(digits):
                continue
            is_international = found.group().startswith("+")
            if is_international or len(digits) >= 10 or _PHONE_LABEL.search(line):
                return f"+{digits}" if is_international else digits
    return ""


def _is_years(digits: str) -> bool:
    """Such as 2019 - 2021."""
    return len(digits) == 8 and all(part[:2] in ("19", "20") for part in (digits[:4], digits[4:]))


def _dates(text: str) -> Iterator[str]:
    seen: set[str] = set()
    for found in _DATE.finditer(text):
        said = _iso(found)
        if said and said not in seen:
            seen.add(said)
            yield said
            if len(seen) == MAX_DATES:
                return


def _iso(found: re.Match[str]) -> str:
    """The date as ISO; empty if there is no such day or month. A day before a month is read only where dots say so."""
    match found.lastgroup:
        case "iso":
            year, month, day = found["iso"].split("-")
        case "dots":
            day, month, year = found["dots"].split(".")
        case "iso_month":
            return found["iso_month"]
        case "month_year":
            month, year = found["month_year"].split("/")
            return f"{year}-{int(month):02}"
        case _:
            word = found["word"][:3].lower()
            return f"{found['word_year']}-{_MONTHS.index(word) + 1:02}" if word in _MONTHS else ""
    try:
        return date(int(year), int(month), int(day)).isoformat()
    except ValueError:
        return ""


def _skills(lines: tuple[str, ...]) -> Iterator[str]:
    seen: set[str] = set()
    for line in lines:
        for part in re.split(r"[,;|•·]", line):
            skill = part.strip(" .:")
            if 1 <= len(skill) <= 60 and skill.lower() not in seen:
                seen.add(skill.lower())
                yield skill
                if len(seen) == MAX_SKILLS:
                    return
