"""X12 834 and 837 files by way of hccinfhir, plus the little that it leaves out.

Left out there and needed here: whether a file arrived whole, the identifier on the member's
card (NM109) when the payer has its own (REF*0F), and what a service line costs (SV102, SV203).
"""

from endings import BrokenInput


def segments_of(content):
    return [part.strip().split("*") for part in content.split("~") if part.strip()]


def text_of(name, body):
    """Decode a file; X12 is ASCII, and payers also send Latin-1."""
    if b"\x00" in body:
        message = f"{name}: binary data, not an X12 file"
        raise BrokenInput(message)
    return body.decode("latin-1")


def whole_interchange(name, content, transaction):
    """Refuse a file that is not one complete X12 interchange of the transaction.

    hccinfhir reads what it finds and stays silent about the rest; half a file of claims would
    look like a quiet day.

    Raises
    ------
    BrokenInput
        With the file's name and what is wrong with its envelope, nothing of its content.
    """
    problem = _envelope_problem(segments_of(content), transaction)
    if problem:
        message = f"{name}: {problem}"
        raise BrokenInput(message)


def _envelope_problem(segments, transaction):
    if not segments or segments[0][0] != "ISA" or len(segments[0]) != 17:
        return "not an X12 interchange (no ISA header)"
    names = [segment[0] for segment in segments]
    if names[-1] != "IEA":
        return "the X12 interchange is truncated (no IEA trailer)"
    if segments[-1][-1] != segments[0][13]:
        return "ISA and IEA control numbers differ"
    if names.count("ST") != names.count("SE") or names.count("GS") != names.count("GE"):
        return "an X12 transaction or group is not closed"
    if {segment[1] for segment in segments if segment[0] == "ST"} != {transaction}:
        return f"not an X12 {transaction} file"
    return None


def read_members(name, content):
    """Read an 834: one record per member loop and one per coverage segment.

    Age and "new enrollee" are not taken over: hccinfhir computes them from today's date, and a
    second run of an old business date must give the same rows.
    """
    from hccinfhir.extractor_834 import extract_enrollment_834  # noqa: PLC0415 (0.3 s to import)

    whole_interchange(name, content, "834")
    try:
        enrollments = extract_enrollment_834(content)
    except ValueError:
        message = f"{name}: hccinfhir cannot read it as an X12 834"
        raise BrokenInput(message) from None
    cards = _card_ids(segments_of(content))
    return [_member(found, cards) for found in enrollments if found.member_id]


def _member(found, cards):
    fields = [
        "member_id",
        "mbi",
        "medicaid_id",
        "first_name",
        "last_name",
        "dob",
        "sex",
        "death_date",
        "zip",
        "state",
        "dual_elgbl_cd",
        "orec",
        "crec",
        "snp",
        "low_income",
        "lti",
        "maintenance_type",
    ]
    row = {field: getattr(found, field) for field in fields}
    row["card_id"] = cards.get(found.member_id)
    row["coverage"] = [
        {"plan": held.hcp_code or "", "start": held.start_date, "end": held.end_date}
        for held in found.hcp_history
    ]
    return row


def _card_ids(segments):
    """Map REF*0F to NM109 within each INS loop."""
    cards, member = {}, None
    for segment in segments:
        if segment[0] == "INS":
            member = None
        elif segment[:2] == ["REF", "0F"] and len(segment) > 2:
            member = segment[2]
        elif segment[:2] == ["NM1", "IL"] and len(segment) > 9 and member:
            cards[member] = segment[9]
    return cards


def read_claim_lines(name, content):
    """Read an 837: hccinfhir's service lines, each with its charge, unit and line number."""
    from hccinfhir.extractor_837 import extract_sld_837  # noqa: PLC0415

    whole_interchange(name, content, "837")
    try:
        services = extract_sld_837(content)
    except ValueError:
        message = f"{name}: hccinfhir cannot read it as an X12 837"
        raise BrokenInput(message) from None
    costs = list(_costs(segments_of(content)))
    if len(costs) != len(services):
        message = f"{name}: {len(costs)} service segments, {len(services)} of them readable"
        raise BrokenInput(message)
    return list(zip(services, costs, strict=True))


def _costs(segments):
    """Yield (line number in its claim, charge, unit) per SV1 or SV2, in file order."""
    line = 0
    for segment in segments:
        if segment[0] == "CLM":
            line = 0
        elif segment[0] in ("SV1", "SV2") and len(segment) > 1:
            line += 1
            at = 2 if segment[0] == "SV1" else 3
            charge, unit = (*segment[at : at + 2], "", "")[:2]
            yield line, charge, unit
