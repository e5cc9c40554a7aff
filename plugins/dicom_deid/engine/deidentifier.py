"""The engine's two calls: what does an object need, and, given that, what are its new bytes."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from threading import Lock
from typing import Any, NamedTuple

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
    ItemContext,
    NeedMoreDataError,
    TrailingBytesError,
    walk_elements,
)
from dicom_deid.engine.analysis import AnalysisResult, DeidentifyResult
from dicom_deid.engine.deidentification_attributes import DeidentificationAttribute, attributes_of
from dicom_deid.engine.element_refs import ElementRef, erase, iter_elements
from dicom_deid.engine.handler_table import CAPTURED, HandlerTable, RootContext, RuleContext
from dicom_deid.engine.handlers.basic import ObjectWalk
from dicom_deid.engine.pixels import CleanedPixels
from dicom_deid.engine.pixels.policy import PixelAndDocumentPolicy
from dicom_deid.engine.references import MODALITIES
from dicom_deid.engine.residuals.patterns import SearchTerms, matcher_for_terms
from dicom_deid.engine.residuals.search import RemovedValues, Residual, find_residuals, redacted, removed_values, where
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.reasons import Reason
from dicom_deid.recipe import NO_PRESENCE, CompiledRecipe, ElementName, Presence, Recipe, types_of

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
    def of(cls, analysis: AnalysisResult) -> _Given:
        """Return an examined object as it was given, or as the residual search left it."""
        walk = analysis.walk
        source, header, start = analysis.source, analysis.header, analysis.start
        return cls(source, header, walk.data, start, walk.partial, analysis.given, analysis.size)

    def iter_elements(self, **how: Any) -> list[ElementRef]:
        """List the elements."""
        return iter_elements(self.data, self.start, self.header.transfer_syntax.encoding, partial=self.partial, **how)

    def inventory_of_meta(self) -> list[ElementRef]:
        """List the elements of the file meta information."""
        start, end = self.header.meta_start, self.header.data_set_start
        implicit = meta_is_implicit(self.source, start)
        return iter_elements(self.source[:end], start, Encoding(implicit, big_endian=False)) if start < end else []


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
        self.plan = CompiledRecipe(recipe)
        self._functions = dict(functions or {})
        self._variables = dict(variables or {})
        self._deidentification_attributes = attributes_of(recipe, self.plan) if self.settings.stamp_method else ()
        self._pixel_policy = PixelAndDocumentPolicy(recipe, self.settings)
        self._lock = Lock()
        self._handler_tables: OrderedDict[Any, HandlerTable] = OrderedDict()
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

    def analyse(self, data: bytes, *, size: int | None = None) -> AnalysisResult:
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

    def rewrite(self, analysis: AnalysisResult, pseudonyms: Mapping[Identifier, str]) -> DeidentifyResult:
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
        walk, header = analysis.walk, analysis.header
        edits = self._final_edits(walk, pseudonyms)
        order = BIG_ENDIAN if header.transfer_syntax.encoding.big_endian else LITTLE_ENDIAN
        pieces: list[Any] = splice(walk.data, analysis.start, analysis.end, edits, order)
        first = next((piece for piece in pieces if len(piece)), b"")
        if not begins_as(bytes(first[:6]), header.transfer_syntax.encoding):
            # Of a mixture of explicit and implicit VRs the rules took away the element by which readers tell them.
            raise Quarantine(Reason.MALFORMED, "VRs are explicit and implicit", analysis.start)
        if analysis.beyond is not None:
            pieces.append(analysis.beyond)
        if analysis.tail is not None:
            tail_edits = self._final_edits(analysis.tail, pseudonyms, changed=bool(edits))
            pieces += splice(analysis.tail.data, 0, analysis.tail_end, tail_edits, order)
        identifiers = _identifiers(walk, edits)
        if header.transfer_syntax.deflated:
            pieces = [self._deflated(analysis, edits, pieces)]
        if analysis.meta is None:
            head = self._new_header(analysis, identifiers, pseudonyms)
        else:
            meta_edits = self._final_edits(analysis.meta, pseudonyms)
            head = b"".join(splice(analysis.source, 0, header.data_set_start, meta_edits, LITTLE_ENDIAN))
        if pieces[0].__class__ is bytes:
            pieces[0] = head + pieces[0]
        else:
            pieces.insert(0, head)
        return DeidentifyResult(tuple(pieces), identifiers, analysis.handler_table.plan, walk)

    def deidentify(
        self, data: bytes, resolve: Callable[[Collection[Identifier]], Mapping[Identifier, str]]
    ) -> DeidentifyResult:
        """Examine and rewrite one whole object.

        Parameters
        ----------
        data
            The object.
        resolve
            Gives a pseudonym for each original that it is called with.
        """
        analysis = self.analyse(data)
        return self.rewrite(analysis, resolve(analysis.identifiers))

    def analyse_tail(self, analysis: AnalysisResult, tail: bytes) -> None:
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
        walk.share(analysis.walk)
        analysis.tail = walk
        head = analysis.walk
        encoding = analysis.header.transfer_syntax.encoding
        contexts = analysis.handler_table.root(encoding)
        analysis.tail_end = self._walk_root(walk, analysis.handler_table, contexts[-1:], 0, head.codecs)
        if walk.captured or walk.pixel_data or walk.planes_removed:
            raise Quarantine(Reason.MALFORMED, "an identifier or pixel data after the pixel data")
        self._key_by_study(walk, head.captured_text("StudyInstanceUID"), head.captured_text("PatientID"))
        if self.settings.residuals != "off":
            self._search_tail(analysis, walk, encoding)

    def _search_tail(self, analysis: AnalysisResult, tail: ObjectWalk, encoding: Encoding) -> None:
        # The beginning was searched already, but not for what the tail's rules took out.
        head = analysis.walk
        removed = removed_values(tail, head)
        residuals = find_residuals(tail, 0, analysis.tail_end, encoding, *removed)
        if tail.edits:
            residuals += find_residuals(head, analysis.start, analysis.end, encoding, *removed_values(tail))
        if residuals:
            self._report(analysis, residuals)

    def _report(self, analysis: AnalysisResult, residuals: list[Residual]) -> None:
        # What an object of which only parts are given would have to lose is not taken out.
        if self.settings.residuals != "report":
            raise _refusal(residuals)
        analysis.walk.note(Reason.RESIDUAL_REPORTED, len(residuals))

    def _search_file_meta(self, analysis: AnalysisResult, removed: RemovedValues) -> None:
        header = analysis.header
        implicit = meta_is_implicit(analysis.source, header.meta_start)
        encoding = Encoding(implicit, big_endian=False)
        meta = analysis.meta
        if meta is not None and header.meta_start < header.data_set_start:
            residuals = find_residuals(meta, header.meta_start, header.data_set_start, encoding, *removed)
            if residuals:
                self._report(analysis, residuals)

    def search_patient_terms(self, analysis: AnalysisResult, terms: SearchTerms) -> AnalysisResult:
        """Search an analysed object for the terms of the patient's other objects.

        Parameters
        ----------
        examination
            What :meth:`examine` returned, with its tail if it has one.
        terms
            The terms, see `PatientTermIndex`.

        Returns
        -------
        Examination
            The same, or that of the object without what was found, by the policy for residuals.

        Raises
        ------
        Quarantine
            When the policy says so, or what was found cannot be taken out.
        """
        walk, encoding = analysis.walk, analysis.header.transfer_syntax.encoding
        matcher = matcher_for_terms(terms, walk.codecs)
        self._search_file_meta(analysis, RemovedValues(matcher, frozenset()))
        tail = analysis.tail
        if tail is not None:
            residuals = find_residuals(tail, 0, analysis.tail_end, encoding, matcher)
            if residuals:
                self._report(analysis, residuals)
        residuals = find_residuals(walk, analysis.start, analysis.end, encoding, matcher)
        if not residuals:
            return analysis
        searched = self._apply_residual_policy(_Given.of(analysis), analysis, residuals)
        if searched is not analysis:
            if tail is not None:
                self.analyse_tail(searched, tail.data)
            left = find_residuals(searched.walk, searched.start, searched.end, encoding, matcher)
            if left:
                raise _refusal(left)
        return searched

    def patient_terms(self, data: bytes, *, size: int | None = None) -> tuple[str, SearchTerms]:
        """Return the patient of an object and the identifying values that the rules remove from it.

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
        analysis = self._walk_by_rules(self._given(data, size))
        return analysis.patient, removed_values(analysis.walk).matcher.terms

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

    def _examine(self, given: _Given) -> AnalysisResult:
        header = given.header
        encoding = header.transfer_syntax.encoding
        analysis = self._walk_by_rules(given)
        cleaned = self._pixel_policy.apply(analysis.walk, header, given.source, given.size)
        if cleaned is not None:
            analysis = self._walk_object(given, self._book_with(analysis.handler_table, cleaned, encoding))
            analysis.transfer_syntax_uid = cleaned.transfer_syntax_uid
            analysis.walk.noted.update(cleaned.notes)
        if self.settings.residuals == "off":
            return analysis
        removed = analysis.removed = removed_values(analysis.walk)
        if analysis.meta is not None:
            self._search_file_meta(analysis, removed)
        residuals = find_residuals(analysis.walk, given.start, analysis.end, encoding, *removed)
        return self._apply_residual_policy(given, analysis, residuals) if residuals else analysis

    def _walk_by_rules(self, given: _Given) -> AnalysisResult:
        sop_class_uid = given.header.media_storage_sop_class_uid
        handler_table = self._plain_book if self._is_plain else self._book_for(given, sop_class_uid)
        analysis = self._walk_object(given, handler_table)
        if self._depends_on_sop_class and analysis.original("SOPClassUID") != sop_class_uid:
            # What the object is cannot be told for certain: the strictest types hold.
            return self._walk_object(given, self._book_for(given, ""))
        return analysis

    def _walk_object(self, given: _Given, handler_table: HandlerTable) -> AnalysisResult:
        header = given.header
        walk = ObjectWalk(given.data, len(self.recipe.rules), given.partial)
        walk.encapsulated = header.transfer_syntax.encapsulated
        if self.plan.needs_values:
            walk.value_lists = self._value_lists(given, handler_table)
        meta = None if self.settings.rebuild_file_meta else self._walk_file_meta(given, walk, handler_table)
        end = self._walk_root(walk, handler_table, handler_table.root(header.transfer_syntax.encoding), given.start)
        if walk.to_key:
            self._key_by_study(walk, walk.captured_text("StudyInstanceUID"), walk.captured_text("PatientID"))
        analysis = AnalysisResult(given.source, header, walk, handler_table, given.start, end, given.length, given.size)
        analysis.meta = meta
        if meta is None:
            self._ask_for_instance(analysis)
        return analysis

    def _apply_residual_policy(
        self, given: _Given, analysis: AnalysisResult, residuals: list[Residual]
    ) -> AnalysisResult:
        # What is taken out is taken out before the rules act, and the rules act again on what is left.
        policy = self.settings.residuals
        if policy in ("quarantine", "report"):
            self._report(analysis, residuals)
            return analysis
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
        before = analysis.walk.noted.get(Reason.RESIDUAL_REMOVED, 0)
        again.walk.note(Reason.RESIDUAL_REMOVED, before + len(residuals))
        return again

    def _book_with(self, handler_table: HandlerTable, pixels: CleanedPixels, encoding: Encoding) -> HandlerTable:
        deidentification_attributes = [
            DeidentificationAttribute(
                tag, vr_of(tag), from_python(tag, vr_of(tag), value, encoding, DEFAULT_CHARACTER_SET)
            )
            for tag, value in pixels.elements.items()
            # The rules decide over what is no description of the pixels (ImageType).
            if value is not None
            and (tag >> 16 == 0x0028 or not handler_table.plan.steps(ElementName.of(tag), handler_table.presence))
        ]
        return self._new_book(
            handler_table.plan,
            handler_table.presence,
            handler_table.kept,
            (*self._deidentification_attributes, *deidentification_attributes),
            pixels,
        )

    def _walk_root(
        self,
        walk: ObjectWalk,
        handler_table: HandlerTable,
        contexts: tuple[RootContext, ...],
        pos: int,
        codecs: tuple[str, ...] = DEFAULT_CHARACTER_SET,
    ) -> int:
        end = len(walk.data)
        item_context = ItemContext(contexts[0], codecs)
        for context in contexts:
            walk.added = False
            if pos < end:
                try:
                    pos = walk_elements(walk, context, pos, end, item_context)
                except TrailingBytesError as trailing:
                    pos = end = trailing.offset
                    walk.note(Reason.TRAILING_BYTES_REMOVED)
            if context.until is not None and not walk.added:
                self._insert(walk, handler_table, context, context.until, pos, item_context)
        if walk.partial and (walk.pixel_data is None or (walk.pixel_data[1] or end + 1) <= end):
            # What follows the pixel data was not given, or not all of it.
            raise NeedMoreDataError(2 * end)
        walk.codecs = item_context.codecs
        return pos

    def _insert(
        self,
        walk: ObjectWalk,
        handler_table: HandlerTable,
        context: RuleContext,
        tag: int,
        pos: int,
        item_context: ItemContext,
    ) -> None:
        new = handler_table.insertion(context, tag)
        if isinstance(new, bytes):
            walk.edits.append((pos, pos, new, item_context))
            walk.count("stamped")
        elif new is not None:
            new.change(walk, pos, pos, b"", item_context)

    def _walk_file_meta(self, given: _Given, data_set: ObjectWalk, handler_table: HandlerTable) -> ObjectWalk:
        # File meta information that is not rebuilt is seen by rules, and is explicit VR little endian whatever the
        # data set is.
        start, end = given.header.meta_start, given.header.data_set_start
        walk = ObjectWalk(given.source, 0)
        walk.share(data_set)
        if start < end:
            context = handler_table.file_meta(implicit=meta_is_implicit(walk.data, start))
            item_context = ItemContext(context)
            walk_elements(walk, context, start, end, item_context)
            for tag in sorted(handler_table.meta_additions):
                if context.order.tag.pack(tag >> 16, tag & 0xFFFF) not in {key[:4] for key in context.known}:
                    self._insert(walk, handler_table, context, tag, end, item_context)
        return walk

    def _key_by_study(self, walk: ObjectWalk, study: str, patient: str) -> None:
        # An empty identifier is the study's own; a patient without an identifier is the study's own too.
        for index, kind in walk.to_key:
            original = Identifier(kind, (patient if kind is IdentifierKind.DATE_OFFSET else "") or study)
            if not original.value:
                raise Quarantine(Reason.MISSING_IDENTIFIER, "(0020,000d)")
            start, end, (handler, needs), item_context = walk.edits[index]
            walk.edits[index] = (start, end, (handler, handler.keyed(needs, original)), item_context)
            walk.identifiers[original] = None

    def _ask_for_instance(self, analysis: AnalysisResult) -> None:
        # The file meta information needs an instance UID even where the data set has none.
        walk = analysis.walk
        found = walk.captured.get("SOPInstanceUID")
        if found is not None and walk.data[found[0] : found[1]].strip(b"\0 "):
            return
        uid = analysis.header.media_storage_sop_instance_uid
        if not uid:
            raise Quarantine(Reason.MISSING_IDENTIFIER, "(0008,0018)")
        if analysis.handler_table.follows:
            analysis.instance = Identifier(IdentifierKind.UID, uid)
            walk.identifiers[analysis.instance] = None

    # Rules that depend on the object

    def _new_book(
        self,
        plan: CompiledRecipe,
        presence: Any,
        kept: frozenset[int],
        deidentification_attributes: tuple[DeidentificationAttribute, ...] | None = None,
        pixels: CleanedPixels | None = None,
    ) -> HandlerTable:
        chosen = (
            self._deidentification_attributes if deidentification_attributes is None else deidentification_attributes
        )
        return HandlerTable(plan, self.settings, self._functions, self._variables, chosen, presence, kept, pixels)

    def _book_for(self, given: _Given, sop_class_uid: str) -> HandlerTable:
        types = types_of(sop_class_uid if self._depends_on_sop_class else "")
        presence, kept = self._what_rules_ask(given) if self._depends_on_object else (NO_PRESENCE, frozenset[int]())
        key = (types, presence, kept)
        with self._lock:
            handler_table = self._handler_tables.get(key)
            if handler_table is None:
                if types not in self._plans:
                    self._plans[types] = CompiledRecipe(self.recipe, types)
                handler_table = self._handler_tables[key] = self._new_book(self._plans[types], presence, kept)
                if len(self._handler_tables) > _MAX_BOOKS:
                    self._handler_tables.popitem(last=False)
            self._handler_tables.move_to_end(key)
        return handler_table

    def _what_rules_ask(self, given: _Given) -> tuple[Presence, frozenset[int]]:
        kept: frozenset[int] = frozenset()
        if self.plan.has_keeps:
            roots = [*given.iter_elements(nested=False), *given.inventory_of_meta()]
            kept = frozenset(one.element.tag for one in roots if self.plan.is_kept(one.element))
        presence = NO_PRESENCE
        if self.plan.needs_presence:
            listed = given.iter_elements(hidden=self._hides(kept))
            presence = self.plan.presence([one.element for one in listed])
        return presence, kept

    def _hides(self, kept: frozenset[int]) -> Callable[[Any], bool]:
        return lambda element: element.tag in kept or self.plan.is_skipped(element)

    def _value_lists(self, given: _Given, handler_table: HandlerTable) -> Any:
        listed = given.iter_elements(hidden=self._hides(handler_table.kept))
        giving = [one for one in listed if self.plan.gives_values(one.element)]
        return self.plan.collect_values([(one.element, one.texts(given.data)) for one in giving])

    # The new bytes

    def _final_edits(self, walk: ObjectWalk, pseudonyms: Mapping[Identifier, str], changed: bool = False) -> list[Edit]:
        final = walk.edits.copy()
        for index in walk.pending:
            start, end, (handler, needs), item_context = final[index]
            try:
                final[index] = (start, end, handler.render(walk, start, needs, item_context, pseudonyms), item_context)
            except Quarantine as problem:
                where = problem.where or item_context.context.where(walk.data, start)
                raise Quarantine(problem.reason, where, start) from None
        if walk.signatures:
            _settle_signatures(walk, final, changed)
        for index in walk.group_lengths:
            final[index] = _group_length(walk, final, index)
        return final

    def _new_header(
        self, analysis: AnalysisResult, identifiers: Mapping[str, str], pseudonyms: Mapping[Identifier, str]
    ) -> bytes:
        instance = identifiers.get("SOPInstanceUID", "")
        if not instance:
            original = analysis.instance
            instance = pseudonyms[original] if original else analysis.header.media_storage_sop_instance_uid
        if not instance:
            raise Quarantine(Reason.MISSING_IDENTIFIER, "(0008,0018)")
        sop_class = identifiers.get("SOPClassUID") or analysis.header.media_storage_sop_class_uid
        if sop_class.strip("0123456789."):
            raise Quarantine(Reason.MALFORMED, "(0008,0016)")
        return write_header(sop_class, instance, analysis.transfer_syntax_uid)

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

    def _deflated(self, analysis: AnalysisResult, edits: list[Edit], pieces: list[Any]) -> bytes | memoryview:
        if not edits:
            return memoryview(analysis.source)[analysis.header.data_set_start :]
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
    start, end, new, item_context = edits[index]
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
        return start - 8, end, b"", item_context
    return start, end, item_context.context.order.u32.pack(length), item_context


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
