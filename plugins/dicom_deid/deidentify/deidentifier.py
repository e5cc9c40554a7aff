"""The engine's two calls: what does an object need, and, given that, what are its new bytes."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from threading import Lock
from typing import Any, NamedTuple

from dicom_deid.deidentify.content import ContentJudge
from dicom_deid.deidentify.entries import ObjectWalk
from dicom_deid.deidentify.examination import Deidentified, Examination
from dicom_deid.deidentify.inventory import Listed, erase, inventory
from dicom_deid.deidentify.patterns import Words, finder_of_words
from dicom_deid.deidentify.pixels import CleanedPixels
from dicom_deid.deidentify.references import MODALITIES
from dicom_deid.deidentify.residuals import Residual, Taken, find_residuals, redacted, taken_out, where
from dicom_deid.deidentify.rulebook import CAPTURED, RootLevel, RuleBook, RuleLevel
from dicom_deid.deidentify.settings import Settings
from dicom_deid.deidentify.stamps import Stamp, stamps_of
from dicom_deid.dicom.dictionary import vr_of
from dicom_deid.dicom.part10 import FileHeader, begins_as, meta_is_implicit, read_header, write_header
from dicom_deid.dicom.rewrite import splice
from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.values import DEFAULT_CHARACTER_SET, decode_text, from_python
from dicom_deid.dicom.walk import (
    BIG_ENDIAN,
    LITTLE_ENDIAN,
    LONG,
    Edit,
    NeedMoreDataError,
    Scope,
    TrailingBytesError,
    walk_elements,
)
from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.originals import Kind, Original
from dicom_deid.reasons import Reason
from dicom_deid.recipe import NO_PRESENCE, ElementName, Plan, Presence, Recipe, types_of

# Preamble, prefix and the first element.
_LEAST_HEADER = 144
_IDENTIFIERS = frozenset(CAPTURED.values())
# Different combinations of present elements (recipes with KEEP or `fields:`) and of types (recipes with composite
# actions) that a recipe is compiled for at one time.
_MAX_BOOKS = 256


class _Given(NamedTuple):
    """An object as it was given, or its beginning; what is walked is the source, or the inflated data set."""

    source: bytes
    header: FileHeader
    data: bytes
    start: int
    partial: bool
    length: int
    size: int

    @classmethod
    def of(cls, examination: Examination) -> _Given:
        """Return an examined object as it was given, or as the residual sweep left it."""
        walk = examination.walk
        source, header, start = examination.source, examination.header, examination.start
        return cls(source, header, walk.data, start, walk.partial, examination.given, examination.size)

    def inventory(self, **how: Any) -> list[Listed]:
        """List the elements."""
        return inventory(self.data, self.start, self.header.transfer_syntax.encoding, partial=self.partial, **how)

    def inventory_of_meta(self) -> list[Listed]:
        """List the elements of the file meta information."""
        start, end = self.header.meta_start, self.header.data_set_start
        implicit = meta_is_implicit(self.source, start)
        return inventory(self.source[:end], start, Encoding(implicit, big_endian=False)) if start < end else []


class Deidentifier:
    """De-identifies objects by a recipe; no I/O, and safe to use from several threads.

    Parameters
    ----------
    recipe
        The rules.
    settings
        What the engine does beside them.
    functions
        What ``func:NAME`` calls, by name; other names are looked up by :func:`dicom_deid.recipe.load_function`.
        ``generate_value`` is the pseudonym of the element's value unless it is given here.
    variables
        What ``var:NAME`` stands for, by name. ``patient_offset`` is the patient's own number of days unless it is
        given here.

    Raises
    ------
    ConfigurationError
        Before the first object, for a variable or a function that nobody defined.
    """

    def __init__(
        self,
        recipe: Recipe,
        settings: Settings | None = None,
        *,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        self.recipe = recipe
        self.settings = settings or Settings()
        self.plan = Plan(recipe)
        self._functions = dict(functions or {})
        self._variables = dict(variables or {})
        self._stamps = stamps_of(recipe, self.plan) if self.settings.stamp_method else ()
        self._judge = ContentJudge(recipe, self.settings)
        self._lock = Lock()
        self._books: OrderedDict[Any, RuleBook] = OrderedDict()
        self._plans = {self.plan.types: self.plan}
        self._plain_book = self._new_book(self.plan, NO_PRESENCE, frozenset())
        self._depends_on_object = self.plan.has_keeps or self.plan.needs_presence
        self._depends_on_sop_class = self.plan.depends_on_sop_class
        self._is_plain = not self._depends_on_object and not self._depends_on_sop_class
        self._check_values()

    def _check_values(self) -> None:
        problems = []
        for rule in self.recipe.rules:
            try:
                self._plain_book.source(rule.value)
            except ConfigurationError as problem:
                problems.append(f"{rule.source}:{rule.line}: {problem}")
        if problems:
            raise ConfigurationError("\n".join(problems))

    # The two calls

    def examine(self, data: bytes, *, size: int | None = None) -> Examination:
        """Walk over an object once, and say which pseudonyms it needs.

        Parameters
        ----------
        data
            The object, or its beginning.
        size
            The size of the whole object in bytes, where `data` is only its beginning.

        Raises
        ------
        Quarantine
            When the object cannot be de-identified for certain.
        NeedMoreDataError
            When `data` ends before the object's pixel data begins.
        """
        return self._examine(self._given(data, size))

    def rewrite(self, examination: Examination, pseudonyms: Mapping[Original, str]) -> Deidentified:
        """Write the new object, once an examination.

        Parameters
        ----------
        examination
            What :meth:`examine` returned.
        pseudonyms
            A pseudonym for each of the examination's originals.

        Raises
        ------
        Quarantine
            When a replacement cannot be written, or a function failed.
        """
        walk, header = examination.walk, examination.header
        edits = self._final_edits(walk, pseudonyms)
        order = BIG_ENDIAN if header.transfer_syntax.encoding.big_endian else LITTLE_ENDIAN
        pieces: list[Any] = splice(walk.data, examination.start, examination.end, edits, order)
        first = next((piece for piece in pieces if len(piece)), b"")
        if not begins_as(bytes(first[:6]), header.transfer_syntax.encoding):
            # Of a mixture of explicit and implicit VRs the rules took away the element by which readers tell them.
            raise Quarantine(Reason.MALFORMED, "VRs are explicit and implicit", examination.start)
        if examination.beyond is not None:
            pieces.append(examination.beyond)
        if examination.tail is not None:
            tail_edits = self._final_edits(examination.tail, pseudonyms, changed=bool(edits))
            pieces += splice(examination.tail.data, 0, examination.tail_end, tail_edits, order)
        identifiers = _identifiers(walk, edits)
        if header.transfer_syntax.deflated:
            pieces = [self._deflated(examination, edits, pieces)]
        if examination.meta is None:
            head = self._new_header(examination, identifiers, pseudonyms)
        else:
            meta_edits = self._final_edits(examination.meta, pseudonyms)
            head = b"".join(splice(examination.source, 0, header.data_set_start, meta_edits, LITTLE_ENDIAN))
        if pieces[0].__class__ is bytes:
            pieces[0] = head + pieces[0]
        else:
            pieces.insert(0, head)
        return Deidentified(tuple(pieces), identifiers, examination.book.plan, walk)

    def deidentify(
        self, data: bytes, resolve: Callable[[Collection[Original]], Mapping[Original, str]]
    ) -> Deidentified:
        """Examine and rewrite one whole object.

        Parameters
        ----------
        data
            The object.
        resolve
            Gives a pseudonym for each original that it is called with.
        """
        examination = self.examine(data)
        return self.rewrite(examination, resolve(examination.originals))

    def examine_tail(self, examination: Examination, tail: bytes) -> None:
        """Walk over what follows the pixel data of an object whose beginning was examined.

        Parameters
        ----------
        examination
            Of the beginning; its `pixel_data` says where the pixel data ends.
        tail
            All bytes after the pixel data, to the end of the object.

        Raises
        ------
        Quarantine
            As for :meth:`examine`.
        """
        walk = ObjectWalk(tail, len(self.recipe.rules))
        walk.share(examination.walk)
        examination.tail = walk
        head = examination.walk
        encoding = examination.header.transfer_syntax.encoding
        levels = examination.book.root(encoding)
        examination.tail_end = self._walk_root(walk, examination.book, levels[-1:], 0, head.codecs)
        if walk.captured or walk.pixel_data or walk.planes_removed:
            raise Quarantine(Reason.MALFORMED, "an identifier or pixel data after the pixel data")
        self._key_by_study(walk, head.captured_text("StudyInstanceUID"), head.captured_text("PatientID"))
        if self.settings.residuals != "off":
            self._sweep_tail(examination, walk, encoding)

    def _sweep_tail(self, examination: Examination, tail: ObjectWalk, encoding: Encoding) -> None:
        # The beginning was swept already, but not for what the tail's rules took out.
        head = examination.walk
        taken = taken_out(tail, head)
        residuals = find_residuals(tail, 0, examination.tail_end, encoding, *taken)
        if tail.edits:
            residuals += find_residuals(head, examination.start, examination.end, encoding, *taken_out(tail))
        if residuals:
            self._report(examination, residuals)

    def _report(self, examination: Examination, residuals: list[Residual]) -> None:
        # What an object of which only parts are given would have to lose is not taken out.
        if self.settings.residuals != "report":
            raise _refusal(residuals)
        examination.walk.note(Reason.RESIDUAL_REPORTED, len(residuals))

    def _sweep_meta(self, examination: Examination, taken: Taken) -> None:
        header = examination.header
        implicit = meta_is_implicit(examination.source, header.meta_start)
        encoding = Encoding(implicit, big_endian=False)
        meta = examination.meta
        if meta is not None and header.meta_start < header.data_set_start:
            residuals = find_residuals(meta, header.meta_start, header.data_set_start, encoding, *taken)
            if residuals:
                self._report(examination, residuals)

    def sweep(self, examination: Examination, words: Words) -> Examination:
        """Search an examined object for originals that other objects of the patient gave.

        Parameters
        ----------
        examination
            What :meth:`examine` returned, with its tail if it has one.
        words
            The originals, see `KnownOriginals`.

        Returns
        -------
        Examination
            The same, or that of the object without what was found, by the policy for residuals.

        Raises
        ------
        Quarantine
            When the policy says so, or what was found cannot be taken out.
        """
        walk, encoding = examination.walk, examination.header.transfer_syntax.encoding
        finder = finder_of_words(words, walk.codecs)
        self._sweep_meta(examination, Taken(finder, frozenset()))
        tail = examination.tail
        if tail is not None:
            residuals = find_residuals(tail, 0, examination.tail_end, encoding, finder)
            if residuals:
                self._report(examination, residuals)
        residuals = find_residuals(walk, examination.start, examination.end, encoding, finder)
        if not residuals:
            return examination
        swept = self._sweep(_Given.of(examination), examination, residuals)
        if swept is not examination:
            if tail is not None:
                self.examine_tail(swept, tail.data)
            left = find_residuals(swept.walk, swept.start, swept.end, encoding, finder)
            if left:
                raise _refusal(left)
        return swept

    def words(self, data: bytes, *, size: int | None = None) -> tuple[str, Words]:
        """Return whose object it is, and the originals of the patient that the rules take out of it.

        The same as of an examination, also for an object that is quarantined for what it shows or holds elsewhere.

        Parameters
        ----------
        data, size
            As for :meth:`examine`.

        Raises
        ------
        Quarantine
            When the object cannot be read for certain.
        NeedMoreDataError
            When `data` ends before the object's pixel data begins.
        """
        examination = self._walk_by_rules(self._given(data, size))
        return examination.patient, taken_out(examination.walk).finder.words

    # One walk

    def _given(self, data: bytes, size: int | None) -> _Given:
        partial = size is not None and size > len(data)
        try:
            header = read_header(data)
        except Quarantine as problem:
            if partial and (problem.reason is Reason.TRUNCATED or len(data) < _LEAST_HEADER):
                raise NeedMoreDataError(2 * len(data)) from None
            raise
        length = len(data)
        if not header.transfer_syntax.deflated:
            whole = length if size is None else size
            return _Given(data, header, data, header.data_set_start, partial, length, whole)
        if partial:
            raise NeedMoreDataError(size or 0)
        inflated, end = self._inflate(data, header)
        source = data if not data[end:].strip(b"\0") else data[:end]
        return _Given(source, header, inflated, 0, False, length, length)

    def _examine(self, given: _Given) -> Examination:
        header = given.header
        encoding = header.transfer_syntax.encoding
        examination = self._walk_by_rules(given)
        cleaned = self._judge.judge(examination.walk, header, given.source, given.size)
        if cleaned is not None:
            examination = self._walk_object(given, self._book_with(examination.book, cleaned, encoding))
            examination.transfer_syntax_uid = cleaned.transfer_syntax_uid
            examination.walk.noted.update(cleaned.notes)
        if self.settings.residuals == "off":
            return examination
        taken = examination.taken = taken_out(examination.walk)
        if examination.meta is not None:
            self._sweep_meta(examination, taken)
        residuals = find_residuals(examination.walk, given.start, examination.end, encoding, *taken)
        return self._sweep(given, examination, residuals) if residuals else examination

    def _walk_by_rules(self, given: _Given) -> Examination:
        sop_class_uid = given.header.media_storage_sop_class_uid
        book = self._plain_book if self._is_plain else self._book_for(given, sop_class_uid)
        examination = self._walk_object(given, book)
        if self._depends_on_sop_class and examination.original("SOPClassUID") != sop_class_uid:
            # What the object is cannot be told for certain: the strictest types hold.
            return self._walk_object(given, self._book_for(given, ""))
        return examination

    def _walk_object(self, given: _Given, book: RuleBook) -> Examination:
        header = given.header
        walk = ObjectWalk(given.data, len(self.recipe.rules), given.partial)
        walk.encapsulated = header.transfer_syntax.encapsulated
        if self.plan.needs_values:
            walk.value_lists = self._value_lists(given, book)
        meta = None if self.settings.rebuild_file_meta else self._walk_file_meta(given, walk, book)
        end = self._walk_root(walk, book, book.root(header.transfer_syntax.encoding), given.start)
        if walk.to_key:
            self._key_by_study(walk, walk.captured_text("StudyInstanceUID"), walk.captured_text("PatientID"))
        examination = Examination(given.source, header, walk, book, given.start, end, given.length, given.size)
        examination.meta = meta
        if meta is None:
            self._ask_for_instance(examination)
        return examination

    def _sweep(self, given: _Given, examination: Examination, residuals: list[Residual]) -> Examination:
        # What is taken out is taken out before the rules act, and the rules act again on what is left.
        policy = self.settings.residuals
        if policy in ("quarantine", "report"):
            self._report(examination, residuals)
            return examination
        if policy == "redact-token":
            data = redacted(given.data, residuals)
        else:
            values = [residual.listed.start for residual in residuals]
            encoding = given.header.transfer_syntax.encoding
            data = erase(given.data, given.start, encoding, values, partial=given.partial)
        if data == given.data:
            raise _refusal(residuals)
        source = data if given.data is given.source else given.source
        again = self._examine(given._replace(data=data, source=source))
        before = examination.walk.noted.get(Reason.RESIDUAL_REMOVED, 0)
        again.walk.note(Reason.RESIDUAL_REMOVED, before + len(residuals))
        return again

    def _book_with(self, book: RuleBook, pixels: CleanedPixels, encoding: Encoding) -> RuleBook:
        stamps = [
            Stamp(tag, vr_of(tag), from_python(tag, vr_of(tag), value, encoding, DEFAULT_CHARACTER_SET))
            for tag, value in pixels.elements.items()
            # The rules decide over what is no description of the pixels (ImageType).
            if value is not None and (tag >> 16 == 0x0028 or not book.plan.steps(ElementName.of(tag), book.presence))
        ]
        return self._new_book(book.plan, book.presence, book.kept, (*self._stamps, *stamps), pixels)

    def _walk_root(
        self,
        walk: ObjectWalk,
        book: RuleBook,
        levels: tuple[RootLevel, ...],
        pos: int,
        codecs: tuple[str, ...] = DEFAULT_CHARACTER_SET,
    ) -> int:
        end = len(walk.data)
        scope = Scope(levels[0], codecs)
        for level in levels:
            walk.added = False
            if pos < end:
                try:
                    pos = walk_elements(walk, level, pos, end, scope)
                except TrailingBytesError as trailing:
                    pos = end = trailing.offset
                    walk.note(Reason.TRAILING_BYTES_REMOVED)
            if level.until is not None and not walk.added:
                self._insert(walk, book, level, level.until, pos, scope)
        if walk.partial and (walk.pixel_data is None or (walk.pixel_data[1] or end + 1) <= end):
            # What follows the pixel data was not given, or not all of it.
            raise NeedMoreDataError(2 * end)
        walk.codecs = scope.codecs
        return pos

    def _insert(self, walk: ObjectWalk, book: RuleBook, level: RuleLevel, tag: int, pos: int, scope: Scope) -> None:
        new = book.insertion(level, tag)
        if isinstance(new, bytes):
            walk.edits.append((pos, pos, new, scope))
            walk.count("stamped")
        elif new is not None:
            new.change(walk, pos, pos, b"", scope)

    def _walk_file_meta(self, given: _Given, data_set: ObjectWalk, book: RuleBook) -> ObjectWalk:
        # File meta information that is not rebuilt is seen by rules, and is explicit VR little endian whatever the
        # data set is.
        start, end = given.header.meta_start, given.header.data_set_start
        walk = ObjectWalk(given.source, 0)
        walk.share(data_set)
        if start < end:
            level = book.file_meta(implicit=meta_is_implicit(walk.data, start))
            scope = Scope(level)
            walk_elements(walk, level, start, end, scope)
            for tag in sorted(book.meta_additions):
                if level.order.tag.pack(tag >> 16, tag & 0xFFFF) not in {key[:4] for key in level.known}:
                    self._insert(walk, book, level, tag, end, scope)
        return walk

    def _key_by_study(self, walk: ObjectWalk, study: str, patient: str) -> None:
        # An empty identifier is the study's own; a patient without an identifier is the study's own too.
        for index, kind in walk.to_key:
            original = Original(kind, (patient if kind is Kind.DATE_OFFSET else "") or study)
            if not original.value:
                raise Quarantine(Reason.MISSING_IDENTIFIER, "(0020,000d)")
            start, end, (entry, needs), scope = walk.edits[index]
            walk.edits[index] = (start, end, (entry, entry.keyed(needs, original)), scope)
            walk.originals[original] = None

    def _ask_for_instance(self, examination: Examination) -> None:
        # The file meta information needs an instance UID even where the data set has none.
        walk = examination.walk
        found = walk.captured.get("SOPInstanceUID")
        if found is not None and walk.data[found[0] : found[1]].strip(b"\0 "):
            return
        uid = examination.header.media_storage_sop_instance_uid
        if not uid:
            raise Quarantine(Reason.MISSING_IDENTIFIER, "(0008,0018)")
        if examination.book.follows:
            examination.instance = Original(Kind.UID, uid)
            walk.originals[examination.instance] = None

    # Rules that depend on the object

    def _new_book(
        self,
        plan: Plan,
        presence: Any,
        kept: frozenset[int],
        stamps: tuple[Stamp, ...] | None = None,
        pixels: CleanedPixels | None = None,
    ) -> RuleBook:
        chosen = self._stamps if stamps is None else stamps
        return RuleBook(plan, self.settings, self._functions, self._variables, chosen, presence, kept, pixels)

    def _book_for(self, given: _Given, sop_class_uid: str) -> RuleBook:
        types = types_of(sop_class_uid if self._depends_on_sop_class else "")
        presence, kept = self._what_rules_ask(given) if self._depends_on_object else (NO_PRESENCE, frozenset[int]())
        key = (types, presence, kept)
        with self._lock:
            book = self._books.get(key)
            if book is None:
                if types not in self._plans:
                    self._plans[types] = Plan(self.recipe, types)
                book = self._books[key] = self._new_book(self._plans[types], presence, kept)
                if len(self._books) > _MAX_BOOKS:
                    self._books.popitem(last=False)
            self._books.move_to_end(key)
        return book

    def _what_rules_ask(self, given: _Given) -> tuple[Presence, frozenset[int]]:
        kept: frozenset[int] = frozenset()
        if self.plan.has_keeps:
            roots = [*given.inventory(nested=False), *given.inventory_of_meta()]
            kept = frozenset(one.element.tag for one in roots if self.plan.is_kept(one.element))
        presence = NO_PRESENCE
        if self.plan.needs_presence:
            listed = given.inventory(hidden=self._hides(kept))
            presence = self.plan.presence([one.element for one in listed])
        return presence, kept

    def _hides(self, kept: frozenset[int]) -> Callable[[Any], bool]:
        return lambda element: element.tag in kept or self.plan.is_skipped(element)

    def _value_lists(self, given: _Given, book: RuleBook) -> Any:
        listed = given.inventory(hidden=self._hides(book.kept))
        giving = [one for one in listed if self.plan.gives_values(one.element)]
        return self.plan.collect_values([(one.element, one.texts(given.data)) for one in giving])

    # The new bytes

    def _final_edits(self, walk: ObjectWalk, pseudonyms: Mapping[Original, str], changed: bool = False) -> list[Edit]:
        final = walk.edits.copy()
        for index in walk.pending:
            start, end, (entry, needs), scope = final[index]
            try:
                final[index] = (start, end, entry.render(walk, start, needs, scope, pseudonyms), scope)
            except Quarantine as problem:
                where = problem.where or scope.level.where(walk.data, start)
                raise Quarantine(problem.reason, where, start) from None
        if walk.signatures:
            _settle_signatures(walk, final, changed)
        for index in walk.group_lengths:
            final[index] = _group_length(walk, final, index)
        return final

    def _new_header(
        self, examination: Examination, identifiers: Mapping[str, str], pseudonyms: Mapping[Original, str]
    ) -> bytes:
        instance = identifiers.get("SOPInstanceUID", "")
        if not instance:
            original = examination.instance
            instance = pseudonyms[original] if original else examination.header.media_storage_sop_instance_uid
        if not instance:
            raise Quarantine(Reason.MISSING_IDENTIFIER, "(0008,0018)")
        sop_class = identifiers.get("SOPClassUID") or examination.header.media_storage_sop_class_uid
        if sop_class.strip("0123456789."):
            raise Quarantine(Reason.MALFORMED, "(0008,0016)")
        return write_header(sop_class, instance, examination.transfer_syntax_uid)

    def _inflate(self, data: bytes, header: FileHeader) -> tuple[bytes, int]:
        # What stands behind the deflated data set is not looked at, and never copied.
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            inflated = inflater.decompress(memoryview(data)[header.data_set_start :], self.settings.max_inflated_bytes)
        except zlib.error:
            raise Quarantine(Reason.MALFORMED, "deflated data set", header.data_set_start) from None
        if inflater.unconsumed_tail:
            raise Quarantine(Reason.INFLATED_TOO_LARGE, "deflated data set", header.data_set_start)
        if not inflater.eof:
            raise Quarantine(Reason.TRUNCATED, "deflated data set", len(data))
        return inflated, len(data) - len(inflater.unused_data)

    def _deflated(self, examination: Examination, edits: list[Edit], pieces: list[Any]) -> bytes | memoryview:
        if not edits:
            return memoryview(examination.source)[examination.header.data_set_start :]
        deflater = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -zlib.MAX_WBITS)
        deflated = b"".join([*(deflater.compress(piece) for piece in pieces), deflater.flush()])
        return deflated + b"\0" if len(deflated) % 2 else deflated


def _refusal(residuals: list[Residual]) -> Quarantine:
    return Quarantine(Reason.RESIDUAL_FOUND, where(residuals[0]), residuals[0].start)


def _settle_signatures(walk: ObjectWalk, edits: list[Edit], changed: bool) -> None:
    # Signatures were taken out for now; they are put back where they are all that changes.
    others = [edit for index, edit in enumerate(edits) if index not in walk.signatures]
    if changed or any(isinstance(new, bytes) and walk.data[start:end] != new for start, end, new, _ in others):
        walk.note(Reason.SIGNATURE_REMOVED)
        return
    for index in walk.signatures:
        start = edits[index][0]
        edits[index] = (start, start, b"", None)


def _group_length(walk: ObjectWalk, edits: list[Edit], index: int) -> Edit:
    start, end, new, scope = edits[index]
    group = walk.data[start - 8 : start - 6]
    span_end = end + new.length
    length = new.length
    for first, last, bytes_, _ in edits[index + 1 :]:
        # What is inserted just behind a group belongs to it if its group number is the same.
        inserted = first == last == span_end and bytes_[:2] == group
        if first >= span_end and not inserted:
            break
        if bytes_.__class__ is bytes:
            length += len(bytes_) - last + first
    if length <= 0:
        return start - 8, end, b"", scope
    return start, end, scope.level.order.u32.pack(length), scope


def _identifiers(walk: ObjectWalk, edits: list[Edit]) -> dict[str, str]:
    identifiers = {}
    for keyword, (start, end, codecs, edit, form) in walk.captured.items():
        if keyword not in _IDENTIFIERS:
            continue
        value = walk.data[start:end] if edit < 0 else edits[edit][2][12 if form == LONG else 8 :]
        text = decode_text(value, "LO", codecs).strip("\0 ")
        if text and (keyword != "Modality" or text in MODALITIES):
            identifiers[keyword] = text
    return identifiers
