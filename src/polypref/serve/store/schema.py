"""A store's tables as numbered steps: a new store takes all of them, an older one those that it lacks.

A step that was released is never changed; whatever is new is another step at the end. The SQL is written once, with the
words of ``Words`` for what the databases name differently. A table whose rows belong to a person has the columns
``tenant`` and ``"user"``, and stands in ``OF_A_PERSON``: those rows are deleted when the person leaves. A column that
holds what people wrote stands in ``WRITTEN``: it is searched for texts that only one person wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Words:
    """What databases name differently: ``{bytes}``, ``{number}`` (64 bits), ``{real}``, ``{text}`` (compared by its
    code points), ``{counted}`` (a key that grows with every row and is never used again) and ``{by_key}`` (after a
    table: its rows lie in the order of its key).

    ``encoded`` is a text column as bytes, ``within`` the place of a parameter's bytes in those of a column, 0 if none.
    """

    bytes: str
    number: str
    real: str
    text: str
    counted: str
    by_key: str
    encoded: str
    within: str


SQLITE = Words(
    bytes="BLOB",
    number="INTEGER",
    real="REAL",
    text="TEXT",
    counted="INTEGER PRIMARY KEY AUTOINCREMENT",
    by_key="WITHOUT ROWID",
    encoded="CAST({column} AS BLOB)",
    within="instr({column}, ?)",
)
POSTGRES = Words(
    bytes="BYTEA",
    number="BIGINT",
    real="DOUBLE PRECISION",
    text='TEXT COLLATE "C"',
    counted="BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    by_key="",
    encoded="convert_to({column}, 'UTF8')",
    within="position(? IN {column})",
)


@dataclass(frozen=True)
class Step:
    """One change of the tables: statements separated by semicolons. ``postgres``: PostgreSQL's, where it can do what
    SQLite cannot."""

    number: int
    sql: str
    postgres: str | None = None

    def statements(self, words: Words) -> Iterator[str]:
        """Its statements in the words of a database."""
        sql = self.sql if self.postgres is None or words is not POSTGRES else self.postgres
        return (one for part in sql.split(";") if (one := part.format(**asdict(words)).strip()))


FIRST = """
CREATE TABLE people (tenant {text}, "user" {text}, version {number} NOT NULL DEFAULT 0,
    judgements {number} NOT NULL DEFAULT 0, paused {number} NOT NULL DEFAULT 0, PRIMARY KEY (tenant, "user")) {by_key};
CREATE TABLE judgements (seq {counted}, tenant {text} NOT NULL, "user" {text} NOT NULL, id {text} NOT NULL,
    at {real} NOT NULL, digest {bytes} NOT NULL, body {bytes} NOT NULL, UNIQUE (tenant, id));
CREATE INDEX judgements_of ON judgements (tenant, "user", seq);
CREATE TABLE answers (tenant {text}, request {text}, "user" {text}, at {real} NOT NULL, body {bytes} NOT NULL,
    PRIMARY KEY (tenant, request)) {by_key};
CREATE INDEX answers_of ON answers (tenant, "user");
CREATE TABLE changes (number {number} NOT NULL);
INSERT INTO changes VALUES (0);
"""
SCORERS = """
CREATE TABLE scorers (number {counted}, hash {text} NOT NULL, at {real} NOT NULL, body {bytes} NOT NULL);
CREATE TABLE fits (name {text}, scorer {text}, PRIMARY KEY (name, scorer)) {by_key};
CREATE INDEX fits_of ON fits (scorer);
"""
ID_OF_A_PERSON = """
CREATE TABLE rebuilt (seq {counted}, tenant {text} NOT NULL, "user" {text} NOT NULL, id {text} NOT NULL,
    at {real} NOT NULL, digest {bytes} NOT NULL, body {bytes} NOT NULL, UNIQUE (tenant, id, "user"));
INSERT INTO rebuilt SELECT seq, tenant, "user", id, at, digest, body FROM judgements ORDER BY seq;
DELETE FROM sqlite_sequence WHERE name = 'rebuilt';
INSERT INTO sqlite_sequence (name, seq) SELECT 'rebuilt', seq FROM sqlite_sequence WHERE name = 'judgements';
DROP TABLE judgements;
ALTER TABLE rebuilt RENAME TO judgements;
CREATE INDEX judgements_of ON judgements (tenant, "user", seq);
"""  # an id is unique for one person; SQLite cannot change what is unique in a table
ID_OF_A_PERSON_POSTGRES = """
ALTER TABLE judgements DROP CONSTRAINT judgements_tenant_id_key, ADD UNIQUE (tenant, id, "user");
"""
STEPS: tuple[Step, ...] = (Step(1, FIRST), Step(2, SCORERS), Step(3, ID_OF_A_PERSON, ID_OF_A_PERSON_POSTGRES))
OF_A_PERSON = ("judgements", "answers", "people")
WRITTEN = (  # True: a text column, False: JSON
    ("judgements", "body", False),
    ("answers", "body", False),
    ("people", '"user"', True),
    ("fits", "name", True),
)


def newest(steps: Sequence[Step] | None = None) -> int:
    """The version of the tables that this polypref writes."""
    return (STEPS if steps is None else steps)[-1].number


def searches(many: int, words: Words) -> Iterator[tuple[str, bool]]:
    """A query of ``many`` parameters for each column that people wrote; its one row says of each parameter whether any
    row holds it. With each query: whether the column is text, not JSON."""
    for table, column, is_text in WRITTEN:
        where = words.within.format(column=words.encoded.format(column=column) if is_text else column)
        yield f"SELECT {', '.join([f'max(CASE WHEN {where} > 0 THEN 1 ELSE 0 END)'] * many)} FROM {table}", is_text


def migrate(execute: Callable[[str], object], version: int, words: Words) -> None:
    """Take the steps after ``version``, within the caller's transaction."""
    for step in STEPS:
        if step.number > version:
            for statement in step.statements(words):
                execute(statement)
