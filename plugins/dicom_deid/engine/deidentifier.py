"""The public API of the engine: analyse an object, and rewrite it with the pseudonyms it needs."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Collection, Container, Mapping
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

from pydicom import Dataset

from dicom_deid.dicom.deflate import deflate, inflate
from dicom_deid.dicom.mixed_vrs import MIXED_VRS, parse_with_uniform_vrs
from dicom_deid.dicom.part10 import FileHeader, begins_as, meta_is_implicit, read_header, write_header
from dicom_deid.dicom.reread import check_written
from dicom_deid.dicom.rewrite import splice
from dicom_deid.dicom.tags import is_private, tag_text
from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.values import DEFAULT_CHARACTER_SET, from_python
from dicom_deid.dicom.vr import vr_of
from dicom_deid.dicom.walk import (
    BIG_ENDIAN,
    LITTLE_ENDIAN,
    STOP,
    Edit,
    ItemContext,
    LengthEdit,
    MixedVRsError,
    NeedMoreDataError,
    RuleEdit,
    SearchedEdit,
    TrailingBytesError,
    WrittenEdit,
    walk_elements,
)
from dicom_deid.engine.analysis import AnalysisResult, DeidentifyResult
from dicom_deid.engine.deidentification_attributes import DeidentificationAttribute, attributes_of
from dicom_deid.engine.element_refs import ElementRef, Within, erase, iter_elements
from dicom_deid.engine.free_text import is_in_free_text, vocabulary_functions, with_free_text_rules
from dicom_deid.engine.functions import read_elements
from dicom_deid.engine.handler_table import CAPTURED, HandlerTable, RootContext, RuleContext
from dicom_deid.engine.handlers.basic import GroupLengthEdit, ObjectWalk, PendingEdit, blank_after_pixels
from dicom_deid.engine.handlers.private import NotInSegmentError
from dicom_deid.engine.handlers.steps import FunctionSource
from dicom_deid.engine.pixels import CleanedPixels
from dicom_deid.engine.pixels.codestream import Piece
from dicom_deid.engine.pixels.policy import PixelAndDocumentPolicy
from dicom_deid.engine.references import NON_PATIENT_CLASSES
from dicom_deid.engine.residuals.matcher import MAX_HITS
from dicom_deid.engine.residuals.search import (
    RemovedValues,
    Residual,
    find_residuals,
    in_pixel_data,
    is_in_pixel_data,
    redacted,
    removed_values,
    repeats_identifier,
    where,
)
from dicom_deid.engine.residuals.terms import SearchTerms
from dicom_deid.engine.segment_learner import SegmentLearner
from dicom_deid.engine.segments import SegmentEdit, embedded_values, is_left, new_identifiers
from dicom_deid.engine.settings import Settings
from dicom_deid.engine.shared_headers import resolve_shared
from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.identifiers import Identifier, IdentifierKind, PatientKey
from dicom_deid.reasons import Reason
from dicom_deid.recipe import NO_PRESENCE, CompiledRecipe, ElementName, Presence, Recipe, types_of

# Edits whose bytes depend on the pseudonyms.
_PENDING = (PendingEdit, SegmentEdit)
_NOT_CAPTURED = (b"", DEFAULT_CHARACTER_SET, -1, 0)
_SOP_CLASS_UID = 0x00080016
_REQUIRED = (("SOPClassUID", _SOP_CLASS_UID), ("StudyInstanceUID", 0x0020000D), ("SeriesInstanceUID", 0x0020000E))
_EMBEDDED = "a data set in a value that is none"
# Preamble, prefix and the first element.
_LEAST_HEADER = 144
# Limit on cached handler tables: one per combination of present elements (recipes with KEEP or `fields:`) and of types
# (recipes with composite actions).
_MAX_TABLES = 256


class _ObjectBytes(NamedTuple):
    """An object as it was obj, or its beginning; what is walked is the source, or the inflated data set."""

    file: bytes
    header: FileHeader
    data: bytes
    start: int
    partial: bool
    length: int
    size: int

    @classmethod
    def of(cls, analysis: AnalysisResult) -> _ObjectBytes:
        """Return the bytes of an analysed object, without what the residual search removed."""
        walk = analysis.walk
        source, header, start = analysis.source, analysis.header, analysis.start
        return cls(source, header, walk.data, start, walk.partial, analysis.given, analysis.size)

    def iter_elements(self, **how: Any) -> list[ElementRef]:
        """List the elements."""
        return iter_elements(self.data, self.start, self.header.transfer_syntax.encoding, partial=self.partial, **how)

    def iter_meta_elements(self) -> list[ElementRef]:
        """List the elements of the file meta information."""
        start, end = self.header.meta_start, self.header.data_set_start
        implicit = meta_is_implicit(self.file, start)
        return iter_elements(self.file[:end], start, Encoding(implicit, big_endian=False)) if start < end else []


class Deidentifier:
    """De-identifies objects by a recipe; no I/O, and safe to use from several threads.

    Parameters
    ----------
    recipe
        The rules.
    settings
        Settings of the engine.
    functions
        Functions for ``func:NAME``, by name; others are found by :func:`dicom_deid.recipe.load_function`.
        ``generate_value`` is the pseudonym of the element's value unless it is given here.
    variables
        Values for ``var:NAME``, by name. ``patient_offset`` is the patient's own number of days unless it is
        given here.
    archive_words
        Words that may stay in free text cleaned by vocabulary because they occur for many patients of the project.
    patient_key
        Whether a PatientID identifies a patient alone, or with its issuer.

    Attributes
    ----------
    segments
        What is remembered of elements that objects repeat; None if each element is handled by itself.

    Raises
    ------
    ConfigurationError
        Before the first object, for an undefined variable or function.
    """

    def __init__(
        self,
        recipe: Recipe,
        settings: Settings | None = None,
        *,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        archive_words: Container[str] = (),
        patient_key: PatientKey = "id",
    ) -> None:
        self.recipe = recipe
        self._key_includes_issuer = patient_key == "id-and-issuer"
        self.settings = settings or Settings()
        self.compiled = CompiledRecipe(recipe)
        self._functions = dict(functions or {})
        if self.settings.free_text == "vocabulary":
            self._functions |= vocabulary_functions(recipe, archive_words)
            self.recipe = with_free_text_rules(recipe, self.compiled)
            self.compiled = CompiledRecipe(self.recipe)
        self._variables = dict(variables or {})
        self._deidentification_attributes = attributes_of(recipe, self.compiled) if self.settings.stamp_method else ()
        self._pixel_policy = PixelAndDocumentPolicy(recipe, self.settings)
        self._lock = Lock()
        self._handler_tables: OrderedDict[Any, HandlerTable] = OrderedDict()
        self._compiled_by_types = {self.compiled.types: self.compiled}
        self._default_table = self._new_table(self.compiled, NO_PRESENCE, frozenset())
        self._depends_on_object = self.compiled.has_keeps or self.compiled.needs_presence
        self._depends_on_sop_class = self.compiled.depends_on_sop_class
        self._is_plain = not self._depends_on_object and not self._depends_on_sop_class
        self._check_values()
        sources = [self._default_table.source(rule.value) for rule in self.recipe.rules]
        # Functions see the object as the rules before theirs have left it, which segments do not keep apart.
        sees_object = any(isinstance(source, FunctionSource) and not source.cleans for source in sources)
        self.segments = (
            None
            if sees_object
            else SegmentLearner(len(self.recipe.rules), is_searched=self.settings.residuals != "off")
        )

    def _check_values(self) -> None:
        problems = []
        for rule in self.recipe.rules:
            try:
                self._default_table.source(rule.value)
            except ConfigurationError as problem:
                problems.append(f"{rule.source}:{rule.line}: {problem}")
        if problems:
            raise ConfigurationError("\n".join(problems))

    # Public calls

    def analyse(self, data: bytes, *, size: int | None = None, defer_search: bool = False) -> AnalysisResult:
        """Apply the rules to an object, and return which pseudonyms it needs.

        Parameters
        ----------
        data
            The object, or its beginning.
        size
            The size of the whole object in bytes, where `data` is only its beginning.
        defer_search
            Do not search pixels for text: an object that has to be searched is analysed without a look at its pixels,
            `walk.search_deferred` is set, and it must be analysed again before it is rewritten.

        Raises
        ------
        Quarantine
            If the object cannot be de-identified with certainty.
        NeedMoreDataError
            If `data` ends before the object's pixel data begins.
        """
        return _with_uniform_vrs(partial(self._analyse, defer_search=defer_search), self._read_input(data, size))

    def rewrite(self, analysis: AnalysisResult, pseudonyms: Mapping[Identifier, str]) -> DeidentifyResult:
        """Return the new object; call it once per analysis.

        Parameters
        ----------
        analysis
            The result of :meth:`analyse`.
        pseudonyms
            A pseudonym for each of the identifiers of the analysis.

        Raises
        ------
        Quarantine
            If a replacement cannot be written, or a function failed.
        """
        walk, header = analysis.walk, analysis.header
        if walk.search_deferred:
            raise AssertionError("The pixels of the object were not searched.")
        encoding = header.transfer_syntax.encoding
        if analysis.issuer:
            pseudonyms = {each: pseudonyms[analysis.keyed(each)] for each in walk.identifiers}
        edits = self._final_edits(walk, (analysis.start, analysis.end), encoding, pseudonyms)
        self._search_written(analysis, edits)
        order = BIG_ENDIAN if header.transfer_syntax.encoding.big_endian else LITTLE_ENDIAN
        pieces: list[Any] = splice(walk.data, analysis.start, analysis.end, edits, order)
        first = next((piece for piece in pieces if len(piece)), b"")
        if not begins_as(bytes(first[:6]), header.transfer_syntax.encoding):
            # VRs are explicit and implicit, and the rules removed the first element, which decides for readers.
            raise Quarantine(Reason.MALFORMED, MIXED_VRS, analysis.start)
        if analysis.unread is not None:
            pieces.append(analysis.unread)
        if analysis.tail is not None:
            tail_edits = self._final_edits(analysis.tail, (0, analysis.tail_end), encoding, pseudonyms, bool(edits))
            self._search_written(analysis, tail_edits)
            pieces += splice(analysis.tail.data, 0, analysis.tail_end, tail_edits, order)
        identifiers = new_identifiers(walk, edits)
        if header.transfer_syntax.deflated:
            pieces = [self._deflated(analysis, edits, pieces)]
        if analysis.meta is None:
            head = self._new_header(analysis, identifiers, pseudonyms)
        else:
            meta_encoding = Encoding(meta_is_implicit(analysis.source, header.meta_start), big_endian=False)
            meta_edits = self._final_edits(
                analysis.meta, (header.meta_start, header.data_set_start), meta_encoding, pseudonyms
            )
            self._search_written(analysis, meta_edits)
            head = b"".join(splice(analysis.source, 0, header.data_set_start, meta_edits, LITTLE_ENDIAN))
            if not head:
                # Without file meta information the first element decides whether readers take the file for DICOM.
                read_header(b"".join(piece for piece in pieces if isinstance(piece, bytes | memoryview)))
        if pieces[0].__class__ is bytes:
            pieces[0] = head + pieces[0]
        else:
            pieces.insert(0, head)
        return DeidentifyResult(tuple(pieces), identifiers, analysis.handler_table.compiled, walk)

    def deidentify(
        self, data: bytes, resolve: Callable[[Collection[Identifier]], Mapping[Identifier, str]]
    ) -> DeidentifyResult:
        """Analyse and rewrite one whole object.

        Parameters
        ----------
        data
            The object.
        resolve
            Returns a pseudonym for each of the identifiers.
        """
        analysis = self.analyse(data)
        return self.rewrite(analysis, resolve(analysis.identifiers))

    def search_pixel_data(self, analysis: AnalysisResult, pieces: list[Piece]) -> None:
        """Search what was read of the compressed frames of an object whose beginning was analysed.

        Parameters
        ----------
        analysis
            Of the beginning.
        pieces
            What the fragments hold beside their pictures, see `beside_pictures`.

        Raises
        ------
        Quarantine
            By the policy for residuals.
        """
        analysis.walk.beside_pictures = pieces
        if analysis.removed is not None:
            residuals = in_pixel_data(analysis.walk, analysis.header.transfer_syntax.encoding, analysis.removed)
            if residuals:
                self._report(analysis, residuals)

    def analyse_tail(self, analysis: AnalysisResult, tail: bytes) -> None:
        """Apply the rules to what follows the pixel data of an object whose beginning was analysed.

        Parameters
        ----------
        analysis
            Of the beginning; its `pixel_data` says where the pixel data ends.
        tail
            All bytes from there to the end of the object.

        Raises
        ------
        Quarantine
            As for :meth:`analyse`.
        """
        walk = ObjectWalk(tail, len(self.recipe.rules))
        walk.share(analysis.walk)
        analysis.tail = walk
        head = analysis.walk
        encoding = analysis.header.transfer_syntax.encoding
        contexts = analysis.handler_table.root(encoding)
        start = head.after_pixels
        if start > len(tail):
            raise Quarantine(Reason.TRUNCATED, "(7fe0,0010)", analysis.size)
        blank_after_pixels(walk, 0, start)
        try:
            analysis.tail_end = self._walk_root(walk, analysis.handler_table, contexts[-1:], start, head.codecs)
        except MixedVRsError:
            raise Quarantine(Reason.MALFORMED, MIXED_VRS) from None
        if walk.captured or walk.pixel_data or walk.planes_removed:
            raise Quarantine(Reason.MALFORMED, "an identifier or pixel data after the pixel data")
        self._key_by_study(walk, head.captured_text("StudyInstanceUID"), head.captured_text("PatientID"))
        self._refuse_embedded(walk, start, analysis.tail_end, encoding)
        if self.settings.residuals != "off":
            self._search_tail(analysis, walk, encoding)

    def _search_tail(self, analysis: AnalysisResult, tail: ObjectWalk, encoding: Encoding) -> None:
        # The beginning was searched already, but not for values that the rules removed from the tail.
        head = analysis.walk
        removed = removed_values(tail, head)
        residuals = find_residuals(
            tail, head.after_pixels, analysis.tail_end, encoding, removed, Within(codecs=head.codecs)
        )
        if tail.edits:
            residuals += find_residuals(head, analysis.start, analysis.end, encoding, removed_values(tail))
        if residuals:
            self._report(analysis, residuals)

    def _report(self, analysis: AnalysisResult, residuals: list[Residual]) -> None:
        # Residuals cannot be removed if only parts of the object are given.
        if self.settings.residuals != "report":
            raise _refusal(residuals)
        analysis.walk.note(Reason.RESIDUAL_REPORTED, len(residuals))

    def _search_file_meta(self, analysis: AnalysisResult, removed: RemovedValues) -> None:
        header = analysis.header
        implicit = meta_is_implicit(analysis.source, header.meta_start)
        encoding = Encoding(implicit, big_endian=False)
        meta = analysis.meta
        if meta is not None and header.meta_start < header.data_set_start:
            residuals = find_residuals(meta, header.meta_start, header.data_set_start, encoding, removed)
            if residuals:
                self._report(analysis, residuals)

    def search_patient_terms(self, analysis: AnalysisResult, terms: SearchTerms) -> AnalysisResult:
        """Search an analysed object for identifiers found in other objects of the patient.

        Parameters
        ----------
        analysis
            The result of :meth:`analyse`, with its tail if it has one.
        terms
            The identifiers, see `PatientTermIndex`.

        Returns
        -------
        AnalysisResult
            The same, or that of the object without what was found, by the policy for residuals.

        Raises
        ------
        Quarantine
            If the policy says so, or what was found cannot be removed.
        """
        walk, encoding = analysis.walk, analysis.header.transfer_syntax.encoding
        removed = RemovedValues(terms, codecs=walk.codecs)
        analysis.others = terms
        self._search_file_meta(analysis, removed)
        tail = analysis.tail
        if tail is not None:
            residuals = find_residuals(
                tail, walk.after_pixels, analysis.tail_end, encoding, removed, Within(codecs=walk.codecs)
            )
            if residuals:
                self._report(analysis, residuals)
        try:
            residuals = find_residuals(walk, analysis.start, analysis.end, encoding, removed)
        except NotInSegmentError:
            obj = _ObjectBytes.of(analysis)
            return self.search_patient_terms(self._analyse_and_search(obj, segments=False), terms)
        if not residuals:
            return analysis
        searched = self._apply_residual_policy(_ObjectBytes.of(analysis), analysis, residuals)
        searched.others = terms
        if searched is not analysis:
            if tail is not None:
                self.analyse_tail(searched, tail.data)
            left = find_residuals(searched.walk, searched.start, searched.end, encoding, removed)
            if left:
                raise _refusal(left)
        return searched

    def patient_terms(self, data: bytes, *, size: int | None = None) -> tuple[str, SearchTerms]:
        """Return the patient of an object, and the identifiers of the patient that the rules remove from it.

        Works also for an object that :meth:`analyse` quarantines for its pixels, documents or residuals.

        Parameters
        ----------
        data, size
            As for :meth:`analyse`.

        Raises
        ------
        Quarantine
            When the object cannot be read for certain.
        NeedMoreDataError
            If `data` ends before the object's pixel data begins.
        """
        analysis = _with_uniform_vrs(self._walk_by_rules, self._read_input(data, size))
        return analysis.patient, removed_values(analysis.walk).patient_terms

    # One walk

    def _read_input(self, data: bytes, size: int | None) -> _ObjectBytes:
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
            return _ObjectBytes(data, header, data, header.data_set_start, partial, length, whole)
        if partial:
            raise NeedMoreDataError(size or 0)
        inflated, end = inflate(data, header.data_set_start, self.settings.max_inflated_bytes)
        source = data if not data[end:].strip(b"\0") else data[:end]
        return _ObjectBytes(source, header, inflated, 0, False, length, length)

    def _analyse(self, obj: _ObjectBytes, *, defer_search: bool = False) -> AnalysisResult:
        try:
            return self._analyse_and_search(obj, defer_search=defer_search, segments=True)
        except NotInSegmentError:
            return self._analyse_and_search(obj, defer_search=defer_search, segments=False)

    def _analyse_and_search(self, obj: _ObjectBytes, *, segments: bool, defer_search: bool = False) -> AnalysisResult:
        header = obj.header
        encoding = header.transfer_syntax.encoding
        analysis = self._walk_by_rules(obj, segments=segments)
        if self.settings.rebuild_file_meta:
            _require_identifiers(analysis)
        cleaned = self._pixel_policy.apply(analysis.walk, header, obj.file, obj.size, defer_search=defer_search)
        if cleaned is not None:
            filters, layout = analysis.walk.filters, analysis.walk.layout
            analysis = self._walk_object(obj, self._table_with_pixels(analysis.handler_table, cleaned, encoding))
            analysis.transfer_syntax_uid = cleaned.transfer_syntax_uid
            analysis.walk.noted.update(cleaned.notes)
            analysis.walk.filters, analysis.walk.layout = filters, layout
        self._refuse_embedded(analysis.walk, obj.start, analysis.end, encoding)
        if self.settings.residuals == "off":
            return analysis
        removed = analysis.removed = removed_values(analysis.walk)
        if analysis.meta is not None:
            self._search_file_meta(analysis, removed)
        residuals = find_residuals(analysis.walk, obj.start, analysis.end, encoding, removed)
        return self._apply_residual_policy(obj, analysis, residuals) if residuals else analysis

    def _walk_by_rules(self, obj: _ObjectBytes, *, segments: bool = False) -> AnalysisResult:
        sop_class_uid = obj.header.media_storage_sop_class_uid
        handler_table = self._default_table if self._is_plain else self._table_for(obj, sop_class_uid)
        analysis = self._walk_object(obj, handler_table, segments=segments)
        if self._depends_on_sop_class and analysis.original("SOPClassUID") != sop_class_uid:
            # The SOP class is not certain: use the strictest types.
            return self._walk_object(obj, self._table_for(obj, ""))
        return analysis

    def _walk_object(self, obj: _ObjectBytes, handler_table: HandlerTable, *, segments: bool = False) -> AnalysisResult:
        header = obj.header
        walk = ObjectWalk(obj.data, len(self.recipe.rules), obj.partial)
        learner = self.segments if segments else None
        if learner is not None:
            walk.segments = []
        walk.encapsulated = header.transfer_syntax.encapsulated
        if self.compiled.needs_values:
            walk.value_lists = self._value_lists(obj, handler_table)
        meta = None if self.settings.rebuild_file_meta else self._walk_file_meta(obj, walk, handler_table)
        end = self._walk_root(walk, handler_table, handler_table.root(header.transfer_syntax.encoding), obj.start)
        has_segments = walk.segments or walk.shared
        if walk.partial and has_segments and walk.pixel_data is not None and walk.pixel_data[1] != obj.size:
            # The values that the rules remove after the pixel data are searched for in the walk of these elements.
            raise NotInSegmentError
        if learner is not None:
            learner.observe(walk)
        if walk.keyed_by_study:
            self._key_by_study(walk, walk.captured_text("StudyInstanceUID"), walk.captured_text("PatientID"))
        analysis = AnalysisResult(
            obj.file,
            header,
            walk,
            handler_table,
            obj.start,
            end,
            obj.length,
            obj.size,
        )
        analysis.meta = meta
        if self._key_includes_issuer:
            analysis.issuer = walk.captured_text("IssuerOfPatientID")
        if meta is None:
            self._collect_meta_instance_uid(analysis)
        return analysis

    def _refuse_embedded(self, walk: ObjectWalk, start: int, end: int, encoding: Encoding) -> None:
        """Refuse a data set that the rules left in a value that is none, whatever is searched for in it.

        Private elements may hold one if a setting keeps all of them.
        """
        values = embedded_values(walk, start, end, encoding)
        if not values:
            return
        data = walk.data if end == len(walk.data) else walk.data[:end]
        keeps_private = self.settings.private_elements == "keep"
        for found in iter_elements(data, start, encoding, partial=walk.partial, wanted=sorted(values)):
            tag = found.element.tag
            if found.start in values and not (keeps_private and is_private(tag)) and is_left(walk, found.start):
                name = found.element.nested_name or tag_text(tag)
                raise Quarantine(Reason.MALFORMED, f"{name}: {_EMBEDDED}", found.start)

    def _may_redact(self, residual: Residual) -> bool:
        if is_in_pixel_data(residual):
            return True
        return repeats_identifier(residual) or (self.settings.free_text != "keep" and is_in_free_text(residual))

    def _apply_residual_policy(
        self, obj: _ObjectBytes, analysis: AnalysisResult, residuals: list[Residual]
    ) -> AnalysisResult:
        # Residuals are removed from the original bytes, and the rules are applied again.
        policy = self.settings.residuals
        held = [one for one in residuals if not self._may_redact(one)] if policy == "quarantine" else []
        in_pixels = [one for one in residuals if is_in_pixel_data(one)]
        is_flooded = len(residuals) - len(in_pixels) > MAX_HITS
        if held or policy == "report" or is_flooded or (obj.partial and in_pixels):
            self._report(analysis, held or residuals)
            return analysis
        if policy != "remove-element":
            data = redacted(obj.data, residuals)
        else:
            values = [residual.listed.start for residual in residuals if not is_in_pixel_data(residual)]
            encoding = obj.header.transfer_syntax.encoding
            data = redacted(obj.data, in_pixels)
            data = erase(data, obj.start, encoding, values, partial=obj.partial)
        if data == obj.data:
            raise _refusal(residuals)
        file = data if obj.data is obj.file else obj.file
        again = self._analyse_and_search(obj._replace(data=data, file=file), segments=False)
        before = analysis.walk.noted.get(Reason.RESIDUAL_REMOVED, 0)
        again.walk.note(Reason.RESIDUAL_REMOVED, before + len(residuals))
        return again

    def _table_with_pixels(
        self, handler_table: HandlerTable, pixels: CleanedPixels, encoding: Encoding
    ) -> HandlerTable:
        deidentification_attributes = [
            DeidentificationAttribute(
                tag, vr_of(tag), from_python(tag, vr_of(tag), value, encoding, DEFAULT_CHARACTER_SET)
            )
            for tag, value in pixels.elements.items()
            # Rules have precedence for elements that do not describe the pixels (ImageType).
            if value is not None
            and (tag >> 16 == 0x0028 or not handler_table.compiled.steps(ElementName.of(tag), handler_table.presence))
        ]
        return self._new_table(
            handler_table.compiled,
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
        data, end = walk.data, len(walk.data)
        item_context = ItemContext(contexts[0], codecs)
        head = 4 if contexts[0].implicit else 6
        first = 0
        if self.segments is not None and walk.segments is not None:
            pos, first = self.segments.handle_shared(walk, contexts, pos, item_context)
        for context in contexts[first:]:
            walk.added = False
            if pos < end and context.handlers.get(data[pos : pos + head]) is not STOP:
                try:
                    pos = walk_elements(walk, context, pos, end, item_context)
                except TrailingBytesError as trailing:
                    pos = end = trailing.offset
                    walk.note(Reason.TRAILING_BYTES_REMOVED)
            if context.until is not None and not walk.added:
                self._insert(walk, handler_table, context, context.until, pos, item_context)
        if walk.partial and (walk.pixel_data is None or (walk.pixel_data[1] or end + 1) <= end):
            # The bytes after the pixel data were not given, or not all of them.
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
        edits = len(walk.edits)
        if isinstance(new, bytes):
            walk.edits.append(RuleEdit(pos, pos, new, item_context))
            walk.count("stamped")
        elif new is not None:
            new.change(walk, pos, pos, b"", item_context)
            if tag in CAPTURED and len(walk.edits) > edits:
                walk.captured[CAPTURED[tag]] = (b"", item_context.codecs, edits, new.form)

    def _walk_file_meta(self, obj: _ObjectBytes, data_set: ObjectWalk, handler_table: HandlerTable) -> ObjectWalk:
        # Rules apply to file meta information that is not rebuilt. It is explicit VR little endian.
        start, end = obj.header.meta_start, obj.header.data_set_start
        walk = ObjectWalk(obj.file, 0)
        walk.share(data_set)
        if start < end:
            context = handler_table.file_meta(implicit=meta_is_implicit(walk.data, start))
            item_context = ItemContext(context)
            walk_elements(walk, context, start, end, item_context)
            for tag in sorted(handler_table.meta_additions):
                if context.order.tag.pack(tag >> 16, tag & 0xFFFF) not in {key[:4] for key in context.handlers}:
                    self._insert(walk, handler_table, context, tag, end, item_context)
        return walk

    def _key_by_study(self, walk: ObjectWalk, study: str, patient: str) -> None:
        # An empty identifier, and the date offset of a patient without an identifier, are keyed by the study.
        for index, kind in walk.keyed_by_study:
            original = Identifier(kind, (patient if kind is IdentifierKind.DATE_OFFSET else "") or study)
            edit = walk.edits[index]
            if (
                not original.value
                and edit.start == edit.end
                and walk.captured.get("PatientID", _NOT_CAPTURED)[2] == index
            ):
                # Nothing is inserted into an object that belongs to no study.
                del walk.captured["PatientID"]
                walk.edits[index] = SearchedEdit(edit.start, edit.end, b"")
                continue
            if not original.value:
                raise Quarantine(Reason.MISSING_IDENTIFIER, "(0020,000d)")
            if isinstance(edit, _PENDING):
                edit.key_by(kind, original)
            walk.identifiers[original] = None

    def _collect_meta_instance_uid(self, analysis: AnalysisResult) -> None:
        # The file meta information needs an instance UID even if the data set has none.
        walk = analysis.walk
        found = walk.captured.get("SOPInstanceUID")
        if found is not None and found[0].strip(b"\0 "):
            return
        uid = analysis.header.media_storage_sop_instance_uid
        if not uid:
            raise Quarantine(Reason.MISSING_IDENTIFIER, "(0008,0018)")
        if analysis.handler_table.replaces_references:
            analysis.instance = Identifier(IdentifierKind.UID, uid)
            walk.identifiers[analysis.instance] = None

    # Rules that depend on the object

    def _new_table(
        self,
        compiled: CompiledRecipe,
        presence: Any,
        kept: frozenset[int],
        attributes: tuple[DeidentificationAttribute, ...] | None = None,
        pixels: CleanedPixels | None = None,
    ) -> HandlerTable:
        chosen = self._deidentification_attributes if attributes is None else attributes
        return HandlerTable(compiled, self.settings, self._functions, self._variables, chosen, presence, kept, pixels)

    def _table_for(self, obj: _ObjectBytes, sop_class_uid: str) -> HandlerTable:
        types = types_of(sop_class_uid if self._depends_on_sop_class else "")
        presence, kept = self._object_dependencies(obj) if self._depends_on_object else (NO_PRESENCE, frozenset[int]())
        key = (types, presence, kept)
        with self._lock:
            handler_table = self._handler_tables.get(key)
            if handler_table is None:
                if types not in self._compiled_by_types:
                    self._compiled_by_types[types] = CompiledRecipe(self.recipe, types)
                handler_table = self._handler_tables[key] = self._new_table(
                    self._compiled_by_types[types], presence, kept
                )
                if len(self._handler_tables) > _MAX_TABLES:
                    self._handler_tables.popitem(last=False)
            self._handler_tables.move_to_end(key)
        return handler_table

    def _object_dependencies(self, obj: _ObjectBytes) -> tuple[Presence, frozenset[int]]:
        kept: frozenset[int] = frozenset()
        if self.compiled.has_keeps:
            roots = [*obj.iter_elements(nested=False), *obj.iter_meta_elements()]
            kept = frozenset(one.element.tag for one in roots if self.compiled.is_kept(one.element))
        presence = NO_PRESENCE
        if self.compiled.needs_presence:
            listed = obj.iter_elements(hidden=self._hidden_from_rules(kept))
            presence = self.compiled.presence([one.element for one in listed])
        return presence, kept

    def _hidden_from_rules(self, kept: frozenset[int]) -> Callable[[Any], bool]:
        return lambda element: element.tag in kept or self.compiled.is_skipped(element)

    def _value_lists(self, obj: _ObjectBytes, handler_table: HandlerTable) -> Any:
        listed = obj.iter_elements(hidden=self._hidden_from_rules(handler_table.kept))
        giving = [one for one in listed if self.compiled.gives_values(one.element)]
        return self.compiled.collect_values([(one.element, one.texts(obj.data)) for one in giving])

    # The new bytes

    def _final_edits(
        self,
        walk: ObjectWalk,
        span: tuple[int, int],
        encoding: Encoding,
        pseudonyms: Mapping[Identifier, str],
        changed: bool = False,
    ) -> list[Edit]:
        """Return the edits with their bytes; `span` is the start and end of the data set."""
        resolve_shared(walk, pseudonyms)
        final = walk.edits.copy()
        stages: dict[int, list[int]] = {}
        for index in walk.pending:
            edit = final[index]
            if isinstance(edit, _PENDING):
                if edit.stage is None:
                    final[index] = edit.resolve(walk, pseudonyms)
                else:
                    stages.setdefault(edit.stage, []).append(index)
        for stage in sorted(stages):
            walk.data_set, walk.read_data_set = None, partial(_read_before, stage, walk, span, final, encoding)
            for index in stages[stage]:
                edit = final[index]
                if isinstance(edit, PendingEdit):
                    final[index] = edit.resolve(walk, pseudonyms)
        if walk.signatures:
            _settle_signatures(walk, final, changed)
        # Innermost first: the length of a group depends on the group lengths in its items.
        for index in reversed(walk.group_lengths):
            edit = final[index]
            if isinstance(edit, GroupLengthEdit):
                final[index] = edit.resolve(walk, itertools.islice(final, index + 1, None))
        check_written(walk.data, final)
        return final

    def _search_written(self, analysis: AnalysisResult, edits: list[Edit]) -> None:
        """Search what functions and variables wrote for values that the rules removed, and apply the policy."""
        policy, removed = self.settings.residuals, analysis.removed
        if removed is None:
            return
        written = [edit for edit in edits if isinstance(edit, WrittenEdit) and edit.new]
        if written and analysis.others:
            removed = removed._replace(terms=removed.terms | analysis.others)
        for edit in written:
            context = edit.item_context.context
            encoding = Encoding(context.implicit, context.order.big_endian)
            within = Within(codecs=edit.item_context.codecs)
            residuals = find_residuals(ObjectWalk(edit.new, 0), 0, len(edit.new), encoding, removed, within)
            if not residuals:
                continue
            if policy == "redact-token":
                edit.new = redacted(edit.new, residuals)
            elif policy == "remove-element":
                edit.new = b""
            elif policy == "report":
                analysis.walk.note(Reason.RESIDUAL_REPORTED, len(residuals))
                continue
            else:
                raise Quarantine(Reason.RESIDUAL_FOUND, where(residuals[0]), edit.start)
            analysis.walk.note(Reason.RESIDUAL_REMOVED, len(residuals))

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
        if not sop_class:
            raise Quarantine(Reason.MISSING_IDENTIFIER, "(0008,0016)")
        if sop_class.strip("0123456789."):
            raise Quarantine(Reason.MALFORMED, "(0008,0016)")
        return write_header(sop_class, instance, analysis.transfer_syntax_uid)

    def _deflated(self, analysis: AnalysisResult, edits: list[Edit], pieces: list[Any]) -> bytes | memoryview:
        if not any(_changes(edit, analysis.walk.data) for edit in edits):
            return memoryview(analysis.source)[analysis.header.data_set_start :]
        return deflate(pieces)


def _read_before(rule: int, walk: ObjectWalk, span: tuple[int, int], edits: list[Edit], encoding: Encoding) -> Dataset:
    """Read the data set as the rules before a rule have left it, for the functions of that rule."""
    order = BIG_ENDIAN if encoding.big_endian else LITTLE_ENDIAN
    done = [edit if _is_done(edit, rule) else SearchedEdit(edit.start, edit.start, b"") for edit in edits]
    pieces = splice(walk.data, *span, done, order)
    return read_elements(b"".join(pieces), encoding)


def _is_done(edit: Edit, rule: int) -> bool:
    if isinstance(edit, PendingEdit | GroupLengthEdit):
        return False
    return not isinstance(edit, RuleEdit) or edit.rule < rule


def _with_uniform_vrs(call: Callable[[_ObjectBytes], AnalysisResult], obj: _ObjectBytes) -> AnalysisResult:
    """Call a function, and again with uniform VRs if the object mixes explicit and implicit VRs."""

    def parse(data: bytes) -> AnalysisResult:
        if data is obj.data:
            return call(obj)
        return call(obj._replace(data=data, file=data if obj.data is obj.file else obj.file))

    encoding = obj.header.transfer_syntax.encoding
    return parse_with_uniform_vrs(parse, obj.data, obj.start, encoding, partial=obj.partial)


def _require_identifiers(analysis: AnalysisResult) -> None:
    """Refuse an object without SOP Class, Study or Series UID; `_collect_meta_instance_uid` checks the instance."""
    walk = analysis.walk
    for keyword, tag in _REQUIRED:
        found = walk.captured.get(keyword)
        if found is None or not found[0].strip(b"\0 "):
            sop_class = analysis.original("SOPClassUID") or analysis.header.media_storage_sop_class_uid
            if not sop_class or (tag != _SOP_CLASS_UID and sop_class not in NON_PATIENT_CLASSES):
                raise Quarantine(Reason.MISSING_IDENTIFIER, tag_text(tag))


def _refusal(residuals: list[Residual]) -> Quarantine:
    return Quarantine(Reason.RESIDUAL_FOUND, where(residuals[0]), residuals[0].start)


def _settle_signatures(walk: ObjectWalk, edits: list[Edit], changed: bool) -> None:
    # Restore the signatures if nothing else changed.
    others = [edit for index, edit in enumerate(edits) if index not in walk.signatures]
    if changed or any(_changes(edit, walk.data) for edit in others):
        walk.note(Reason.SIGNATURE_REMOVED)
        return
    for index in walk.signatures:
        start = edits[index].start
        edits[index] = SearchedEdit(start, start, b"")


def _changes(edit: Edit, data: bytes) -> bool:
    return not isinstance(edit, LengthEdit | GroupLengthEdit) and data[edit.start : edit.end] != edit.new
