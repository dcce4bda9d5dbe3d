# ruff: noqa: E501, SIM905  (a pattern or a word list reads best as one piece)
"""Names in Latin letters in running text, with any accent: what stands around a capitalised word says whether it is a person.

Lists alone would know the names of one country. So a title, a label or a kinship makes any word behind it a name, a verb
of persons makes an unknown word before it one, and lists (of names, and of words, drugs, eponyms) settle what is left.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from clinical_r1.privacy.lexicon import english, is_word, plain
from clinical_r1.privacy.spans import Kind, Span

_LETTER = r"[^\W\d_\u3400-\u9fff]"
_TOKEN = re.compile(rf"{_LETTER}+(?:['’‘`´\-]{_LETTER}+)*")
_PARTICLES = frozenset("de del la van von der den di da bin bint al el le dos das do du ibn ben af av zu ter ten y ul ur ap st".split())  # fmt: skip
_TITLES = frozenset(
    "mr mrs ms miss mx dr drs prof professor doctor rev reverend sgt sergeant capt captain nurse sister sir dame lady lord judge officer detective "
    "attorney pastor rabbi imam madam mme mlle monsieur señor señora sr sra srta frau herr dott dra matron father brother midwife paramedic mister master".split()
)
_SHORT_TITLES = frozenset("mr mrs ms mx dr drs prof rev sgt capt st sr sra".split())
_NOT_AFTER_TITLE = frozenset(
    "in on at and or the a an to of is was who called notes notes: stated saw visit notified consulted aware team station practitioner call ordered informed "
    "manager specialist consultant led bank post line staff home mary joseph unit assistant educator sheet facility office order notes records appointment".split()
)
_RELATION = (
    r"(?:son|daughter|husband|wife|mother|father|mum|mom|dad|brother|sister|aunt|uncle|niece|nephew|cousin|partner|fianc[ée]e?|spouse|girlfriend|boyfriend|"
    r"friend|neighbou?r|carer|caregiver|guardian|grandson|granddaughter|grandmother|grandfather|grandma|grandpa|twin|roommate|colleague|stepson|stepdaughter|"
    r"stepfather|stepmother|sibling|in-law|(?:baby|babies|child|children|twins|widow|widower|parents|mother|father|son|daughter|wife|husband|brother|sister|carer|friend) of|lady|gentleman|interpreter|landlord|landlady|teacher|coach|employer|classmate|"
    r"social worker|therapist|physio(?:therapist)?|dietitian|pharmacist|caseworker|student|registrar|consultant|surgeon|physician|anaesthetist|anesthesiologist|"
    r"cardiologist|oncologist|neurologist|psychiatrist|resident|intern|midwife|nurse|paramedic|chaplain|constable|officer|babies|baby|toddler|boy|girl|patient|pt)"
)
_LEFT_PERSON = re.compile(rf"(?i)(?:\b{_RELATION}s?(?:\s(?:is|was|named|called))?[,:]?\s{{0,2}}[(\"“']?|\b(?:family|parents|children|siblings|kids|sons|daughters|twins|couple)\s?[(,:]?\s?|\bparents of\s|\bbaby\s(?:boy|girl)\s)$|(?:患者|病人|患儿|产妇|家属|医[生师]|护士|丈夫|妻子|父亲|母亲|儿子|女儿|朋友|同事|主任|教授|外籍|名叫|叫|由|与|和|请|经)\s?[:：]?\s?$")
_LEFT_NAMED = re.compile(
    r"(?i)(?:\b(?:named|nicknamed|(?:he|she|who|patient|boy|girl|man|woman|child|widely|locally|affectionately|better|usually) (?:is |was )?(?:known|called) as|(?:he|she|who|patient|boy|girl|man|woman|child|locally|affectionately) (?:is |was )?known as|goes by|answers to|(?:calls?|called) (?:him|her|them|it|himself|herself)|known to \w+ as|alias|née|maiden name|formerly|prefers to be called|likes to be called|christened|introduces (?:him|her)self as)\s{0,2}[:,]?\s{0,2}[\"“'‘]?)$"
)
_LEFT_FIELD = re.compile(
    r"(?i)(?:(?:^|[\n;,.|\t(]|\s{2})\s{0,4}(?:(?:patient|pt|client|full|last|first|sur|family|given|middle|maiden|mother'?s|father'?s|legal|preferred)?[ \-]?(?:name|names)|patient|pt|attending(?: physician)?|ordering physician|referring (?:physician|doctor|provider)|"
    r"provider|physician|surgeon|assistant|anesthesi\w+|anaesth\w+|signed(?: off)?(?: by)?|electronically signed(?: by)?|e-?signed(?: by)?|signature|dictated(?: by)?|dictating|transcribed(?: by)?|typed(?: by)?|reviewed(?: by)?|verified(?: by)?|authenticated(?: by)?|"
    r"reported(?: by)?|approved(?: by)?|author(?:ed by)?|cc|next of kin|nok|emergency contact|contact(?: person)?|pcp|gp|consultant|resident|interpreter|guardian|spouse|mother|father|referred by|seen by|accompanied by|informant|historian|witness(?:ed by)?|"
    r"responsible clinician|nurse|midwife|radiologist|pathologist|operator|performed by|requested by|requesting \w+|cosigner|scribe|proxy|poa|hcp|dear|regards|sincerely|yours sincerely|yours faithfully|kind regards|best wishes|carer|key ?worker)\s?(?:(?:is|was)\s|[:：=,\-#]|\n)\s{0,3}|"
    r"(?:\bname\s?(?:is|was|[:：=])\s{0,2}|\b(?:signed|dictated|transcribed|reviewed|verified|authored|reported|typed|checked|countersigned|cosigned) by:?\s{1,2}))$"
)
_LEFT_AGENT = re.compile(
    r"(?i)(?:\b(?:taken|seen|reviewed|dictated|signed|written|performed|accompanied|brought(?: in)?|witnessed|examined|referred|assessed|noted|drawn|collected|told|given|done|found|raised|cared for|supported|visited|escorted|inserted|placed|confirmed|discussed|requested|called|paged|obtained|provided|translated|interpreted|drained|sited|admitted|consented|attended|transported) by\s|"
    r"\b(?:spoke|speak|speaking|spoken|discussed|discussion|talked|talks|met|meeting|conversation|conferred|liaised|lives|living|stays|resides|chat|rounded|reviewed|agreed|counselled|call|appointment|visit)\s(?:\w+\s)?with\s|\b(?:spoke|speak|speaking|spoken|talked|explained|handed|given|listening|reported|referred|letter|message|handover|married|thanks|grateful|known)\s(?:\w+\s)?to\s|"
    r"\b(?:history|referral|letter|call|message|interpreter|note|report|handover|information|consent|email|e-mail|fax|update|gift|samples?)\s(?:\w+\s)?from\s|"
    r"\b(?:i|we|they|she|he|team|to|and)\s(?:also\s)?(?:saw|met|see|reviewed|examined|visited|told|asked|called|phoned|rang|paged|consulted|thanked|counselled|informed|advised|contacted|invited|assessed|helped|escorted|woke|found)(?:\swhether|\sif|\sthat|\swhy)?\s|"
    r"\b(?:asked|told|informed|notified|contacted|phoned|rang|paged|visited|helped|met|saw|seen|discuss|thank|thanks to|inform|notify|contact|ask|tell|discharged|sitting next to|beside)(?:\swhether|\sif|\sthat|\swhen)?\s|\bper\s|"
    r"\b(?:whether|because|when|while|after|before|since|until|once|if|that|says|said|states|and|but|when|as|so|although|though|then|today|this morning|yesterday|overnight|tonight|hello|hi|dear)\s|"
    r"\bcare of\s|\bc/o\s|\battn:?\s|\bcc:?\s|\bd/w\s|\bs/b\s|\bon behalf of\s|\bre:?\s)$"
)
_WEAK_AGENT = re.compile(r"(?i)\b(?:whether|because|when|while|after|before|since|until|once|if|that|and|but|as|so|although|though|then|today|this morning|yesterday|overnight|tonight|re:?)\s$")
_SURE_VERB = re.compile(
    r"(?:\s(?:also|now|still|then|today|again|just|really|always|never|usually|first|had|has|have|has been|was|is|who|later|himself|herself|clearly|only|both))?\s(?:says|said|states|stated|reports|reported|denies|denied|complains|complained|describes|described|lives|lived|works|worked|drove|drives|walks|walked|smokes|smoked|drinks|"
    r"drank|asks|asked|told|tells|wants|wanted|agrees|agreed|refuses|refused|consents|consented|declines|declined|understands|understood|feels|felt|thinks|thought|believes|believed|notices|noticed|noted|notes|phoned|rang|visits|"
    r"visited|attends|attended|arrived|arrives|came|comes|went|goes|returned|returns|fell|sleeps|slept|ate|eats|took|takes|tolerated|underwent|delivered|moved|moves|gave|gives|needs|needed|likes|loves|plays|played|cries|cried|hopes|hoped|wishes|"
    r"prefers|struggles|insists|insisted|admits|admitted|recalls|remembers|forgot|forgets|retired|weighs|appears|appeared|looks|looked|became|becomes|stopped|stops|started|starts|found|tried|tries|spoke|speaks|called|calls|missed|skipped|knows|knew|explained|expressed|requested|requests|woke|wakes|checks|helps|helped|brought|brings|will|would|can|cannot|could|did|does|does not|did not|didn't|doesn't|won't|can't|reviewed|examined|performed|recommended|recommends|advised|suggests|suggested|wrote|signed|witnessed|assisted|"
    r"is a \d|is an? (?:\d|pleasant|elderly|young|delightful|lovely|retired|frequent|former|known|single|married|widowed|right|left|nurse|teacher|farmer|student|smoker|man|woman|boy|girl|lady|gentleman)|is (?:doing|improving|well|recovering|comfortable|alert|oriented|awake|eating|drinking|happy|unhappy|afebrile|stable|asymptomatic|keen|anxious|aware|here|living|married|pregnant|independent|mobile|still|now|back|unable|able)|"
    r"was (?:admitted|discharged|seen|reviewed|referred|born|brought|transferred|advised|counselled|counseled|found|told|asked|started|taken|given|well|at|in|on|able|unable|accompanied|comfortable|alert|happy|upset|tearful|anxious|living|working|walking|sleeping|driving|visited|escorted|last|adopted|raised|informed|contacted)|were (?:at|seen|present|informed|told|updated|both|here)|has (?:had|been|two|three|four|no|never|lived|worked|received|improved|recovered|type|a history|since|lost|gained|stopped|a|an|agreed|refused|declined|asked)|had (?:had|been|a|an|no|received|his|her|never|two|to))\b"
)
_WEAK_VERB = re.compile(r"\s(?:is|was|has|had|were|presents|presented|remains|developed|continues|continued|received|and|who|whose|showed|responded|required)\b")
_POSSESSED = re.compile(r"(?:'s|’s|s'|s’)\s(?:mother|father|mum|mom|dad|parents|wife|husband|son|daughter|family|sister|brother|partner|carer|room|bed|house|home|chart|notes|case|care|history|symptoms|condition|appointment|request|wishes|GP|blood|pain|mood|medications?|results|labs?|wound|school|birth|teacher|insurance|phone|address|employer|lawyer)\b")
_DEMOGRAPHIC = re.compile(r"(?:\s?(?:先生|女士|小姐|医[生师]|教授|主任|护士|同志|老师)|[，,（(\s]{0,2}[男女](?!性)|\s?(?:诉|自诉|要求|自述|因|今日|表示|说)|\s?[,(]?\s?(?:aged\s)?\d{1,3}\s?(?:[MFmf]\b|y/?o\b|yo\b|years?\b|yrs?\b|-year)|,\s\d{2},|\s?\((?:dtr|daughter|son|wife|husband|mom|mum|dad|mother|father|sister|brother|nurse|rn|partner|nok|pt|he|she|they|aunt|uncle|niece|nephew|friend|carer|neighbou?r)\b|,\s(?:the|his|her|their|a|an)\s(?:\w+\s)?(?:mother|father|wife|husband|son|daughter|sister|brother|partner|patient|nurse|surgeon|carer|neighbour|friend|physician|aunt|uncle|grandmother|grandfather|interpreter|lady|gentleman|man|woman)\b|,?\s(?:DOB|MRN)\b|,\swho\s)")
_CREDENTIAL = re.compile(r",?\s{0,2}(?:M\.?D|D\.?O|R\.?N|N\.?P|P\.?A(?:-C)?|Ph\.?D|L\.?P\.?N|PharmD|DDS|MBBS|MBChB|FRC\w+|MRC\w+|FACP|FACS|LCSW|CRNA|CNM|DPM|DNP|BSN|Jr|Sr|Esq|II|III|IV)\b\.?")
_THING = re.compile(
    r"(?:['’]s?)?(?:[\s\-](?:[a-z]+|[A-Z][a-z]+))?[\s\-](?:diseases?|syndromes?|signs?|tests?|phenomen\w+|procedure|scores?|scale|criteria|lymphomas?|tumou?rs?|sarcoma|thyroiditis|contracture|palsy|tetralogy|cells?|bod(?:y|ies)|stain(?:ing)?|"
    r"fractures?|ulcers?|o?esophagus|ana?emia|disorder|dystrophy|neuropathy|catheter|tube|method|mano?euvres?|maneuvers?|reflex|murmur|rash|nodes?|nodules?|lines?|classification|staging|stage|index|respirations?|spots?|chorea|ataxia|law|triad|pouch|duct|gland|loop|space|"
    r"ring|point|angle|encephalopathy|deformity|hernia|position|view|operation|repair|shunt|bypass|solution|agar|reaction|effect|virus|bacillus|macroglobulin\w+|granulomatosis|purpura|nephropathy|cardiomyopathy|arthropathy|amyloidosis|inclusions?|equation|curves?|granules?|"
    r"gait|harness|splint|drain|collar|frame|stent|valve|graft|flap|incision|clamp|retractor|forceps|needle|plate|rods?|nail|screws?|sequence|motif|box|protein|antigen|antibod\w+|factor|bundle|fibers?|fibres?|ligament|fascia|muscle|nerve|ganglion|canal|foramen|fossa|artery|vein|plexus|"
    r"block|blocks|anesthesia|technique|approach|regimen|protocol|trial|study|study group|formula|lesion|cyst|joint|foot|knee|hip|toe|arthritis|hepatitis|nephritis|palsies|psychosis|dementia|headache|neuralgia|epilepsy|seizures?|cramps?|teeth|lens|chart|plot|model|system|layer|"
    r"crisis|cirrhosis|cancer|carcinoma|melanoma|leuka?emia|nuclei|nucleus|eyes?|myeloma|goit(?:er|re)|coma|fever|cough|jaundice|pain|gangrene|abscess|wave|waves|segment|interval|block|pattern|blast|pressure|flow|units?|ratio|level|levels|assay|culture|smear|biopsy|ultrasound|gas|film|injection|tablets?|capsules?|cream|inhaler|patch|pump|"
    r"Disease|Syndrome|Hospital|Clinic|University|Medical|Center|Centre|Institute|Foundation|Score|Scale|Sign|Test|Index|Purpura|Lymphoma|Fracture|Palsy|Ring|Virus)\b"
)
_STATIONS = re.compile(r"(?:^|[.!?:;\n]|\n\s?[-*•]|\d\.)\s{0,3}[\"“(]?$")


@dataclass(frozen=True)
class _Word:
    start: int
    end: int
    text: str
    plain: str
    capital: bool
    letters: int


def _words(text: str) -> list[_Word]:
    found = []
    for match in _TOKEN.finditer(text):
        word = match.group()
        bare = re.sub(r"['’]s$", "", word)
        found.append(_Word(match.start(), match.start() + len(bare), bare, plain(bare), bare[0].isupper(), len(bare)))
    return found


def _clinical(word: _Word) -> bool:
    lists = english()
    if word.plain in lists.clinical:
        return True
    parts = re.split(r"['’\-]", word.plain)
    return len(parts) > 1 and any(part in lists.clinical for part in parts) and parts[0] not in lists.first and all(part in lists.clinical or is_word(part) or len(part) < 3 for part in parts)


def _everyday(word: _Word) -> bool:
    """A word of prose or of the clinic, whatever else it may be."""
    parts = [part for part in re.split(r"['’\-]", word.plain) if part]
    return _clinical(word) or all(is_word(part) or len(part) < 3 or part in english().common for part in parts)


def _first(word: _Word) -> bool:
    return word.plain in english().first or word.plain.split("-")[0] in english().first


def _last(word: _Word) -> bool:
    lists = english()
    return any(part in lists.last for part in (word.plain, word.plain.replace("'", "").replace("’", ""), *word.plain.split("-")))


def _abbreviation(word: _Word) -> bool:
    return word.text.isupper() and word.letters <= 5 and not (_first(word) or _last(word))


def _unknown(word: _Word) -> bool:
    """Capitalised, and neither a word nor anything of the clinic."""
    mixed = not word.text.isupper() and word.text[1:].lower() != word.text[1:] and "-" not in word.text
    camel = mixed and not re.match(r"(?:Mc|Mac|O['’]|D['’]|De|Di|La|Le|Van|Fitz|[A-Z][a-z]+['’])", word.text)
    return word.letters > 2 and not _everyday(word) and not _abbreviation(word) and not camel


_JOIN = re.compile(r"(?:[ \t]{1,2}|\.[ \t]{0,2}|,[ \t]{1,2}|[ \t]?[·•/_\-][ \t]?)")


def _runs(text: str, words: list[_Word]) -> Iterator[list[_Word]]:
    """Capitalised words that follow one another, with initials and particles between them."""
    run: list[_Word] = []
    for index, word in enumerate(words):
        gap = text[run[-1].end : word.start] if run else ""
        dotted = gap.startswith(".") and not (run[-1].letters == 1 or run[-1].plain in _SHORT_TITLES) if run else False
        joined = bool(run) and len(gap) <= 3 and bool(_JOIN.fullmatch(gap)) and not dotted
        following = words[index + 1] if index + 1 < len(words) else None
        particle = joined and word.plain in _PARTICLES and following is not None and (following.capital or following.plain in _PARTICLES)
        if word.capital or particle:
            if run and not joined:
                yield run
                run = []
            run = [*run, word]
            if len(run) > 12:
                yield run
                run = []
        elif run:
            yield run
            run = []
    if run:
        yield run


def find_names_en(text: str) -> Iterator[Span]:
    """Names in Latin letters in folded text, with a score that says how sure."""
    words = _words(text)
    last = 0
    for run in _runs(text, words):
        for piece in _pieces(text, run):
            found = list(_judge(text, piece))
            joined = last and piece[0].start - last <= 5 and re.fullmatch(r"\s(?:and|&|und)\s", text[last : piece[0].start])
            if not found and joined and (_first(piece[0]) or _unknown(piece[0])) and not _THING.match(text[piece[-1].end :][:60]):
                found = [Span(piece[0].start, piece[-1].end, Kind.NAME, 0.8)]  # `Chase and Summer`
            last = found[-1].end if found and found[-1].score > 0.6 else 0
            yield from found
    yield from _lower_case(text, words)
    yield from _signatures(text)
    yield from _spelled(text)


def _pieces(text: str, run: list[_Word]) -> Iterator[list[_Word]]:
    """A run cut at commas, but for `SURNAME, Given`."""
    piece: list[_Word] = []
    for word in run:
        if piece and word.plain in _TITLES and piece[-1].plain not in _TITLES and piece[-1].letters > 1:
            yield piece  # `Informed Mr. Kowalczuk`
            piece = []
        if piece and "," in text[piece[-1].end : word.start]:
            listed = len(piece) <= 2 and word.letters > 1 and _listed(text, piece, word)
            if not listed:
                yield piece
                piece = []
        piece = [*piece, word]
    if piece:
        yield piece


def _listed(text: str, piece: list[_Word], given: _Word) -> bool:
    """`Crohn, Peter attended`, `HENDRICKS, LORRAINE M 67F`, `ZHANG, Xiaoming was`: surname, comma, given name."""
    surname = piece[-1]
    if not (_last(surname) or _unknown(surname) or surname.plain in english().clinical and _first(given)):
        return False
    if not (_first(given) or (given.text.isupper() and given.letters > 3 and not _everyday(given)) or (_unknown(given) and (surname.text.isupper() or _pinyin(surname.plain, given.plain)))):
        return False
    before, after = text[max(0, piece[0].start - 60) : piece[0].start], text[given.end : given.end + 40]
    person = bool(_SURE_VERB.match(after) or _WEAK_VERB.match(after) or _DEMOGRAPHIC.match(re.sub(r"^\s[A-Z]\b\.?", "", after)))
    if _everyday(surname) and _everyday(given) and not surname.text.isupper():
        return person or bool(_LEFT_FIELD.search(before))
    ends = bool(re.match(r"\s{0,2}(?:[A-Z]\.?\s{0,2})?(?:$|[\n;|(\[]|\d)", after))
    return person or ends or bool(_LEFT_FIELD.search(before)) or (surname.text.isupper() and not given.text.isupper())


def _judge(text: str, run: list[_Word]) -> Iterator[Span]:
    """Cut what is no name off the ends of a run, then weigh what is left by what stands around it."""
    titled = False
    while run and (run[0].plain in _TITLES or (run[0].plain in _PARTICLES and not run[0].capital)):
        titled = titled or run[0].plain in _TITLES
        run = run[1:]
    while run and run[-1].plain.upper() in _CREDENTIALS:
        run = run[:-1]
    if not run:
        return
    before = text[max(0, run[0].start - 70) : run[0].start]
    titled = titled or bool(_TITLE_BEFORE.search(before[-22:]))
    if titled and run[0].plain in _NOT_AFTER_TITLE:
        return
    field = bool(_FIELD_END.search(before[-4:]) and _LEFT_FIELD.search(before))
    named = bool(_LEFT_NAMED.search(before[-40:])) and run[0].plain not in _FUNCTION
    if not titled and len(run) == 1 and (run[0].plain in _FUNCTION or (run[0].letters < 3 and not field)):
        return
    strong = titled or named or (field and not _filled_by_prose(text, run))
    run = _until_prose(run) if titled else run if strong else _trimmed(text, run)
    if not run or (len(run) == 1 and run[0].letters == 1):
        return
    start, end = run[0].start, run[-1].end
    after = text[end : end + 60]
    if not strong and _THING.match(after):
        return
    if titled and _THING.match(after) and all(_clinical(word) for word in run if word.letters > 1):
        return  # `Sister Mary Joseph nodule`
    score = 0.95 if strong else _score(text, run, text[max(0, start - 70) : start], after)
    if score:
        yield Span(_with_initials(text, start), end, Kind.NAME, score)


_FIELD_END = re.compile(r"[:：=,\-#\n]\s{0,3}$|(?:by|is|as)\s{1,2}$")
_TITLE_BEFORE = re.compile(r"(?i)\b(?:(?:mr|mrs|ms|mx|dr|prof|rev|sgt|capt|sra?)\b\.?|(?:miss|doctor|nurse|mme|mlle|frau|herr|señora?)\b)(?:\s(?:and|&)\s(?:mr|mrs|ms|dr)\b\.?)?\s{0,2}$")
_CREDENTIALS = frozenset("MD DO RN NP PHD JR SR III II IV MBBS DDS LPN PA ESQ BSN FRCP MRCP CRNA DNP MBCHB FRCS".split())


def _with_initials(text: str, start: int) -> int:
    """Initials before the run (`J. P. Worthington`) belong to it."""
    match = re.search(r"(?:\b[A-Z]\.\s?){1,3}$|\b(?:(?:van|von|der|den|de|la|del|di|da|bin|al|el|ter|ten|du|le)\s){1,3}$", text[max(0, start - 14) : start])
    return start - len(match.group()) if match else start


def _filled_by_prose(text: str, run: list[_Word]) -> bool:
    """`Patient: Denies pain`, `Name: Unknown`: a label before prose."""
    words = [word for word in run if word.letters > 1]
    if not words or words[0].plain in _NOBODY:
        return True
    known = [word for word in words if _first(word) or _last(word)]
    if all(_everyday(word) for word in words) and not (known and re.match(r"\s{0,2}(?:$|[.,;)\n|]|MD|DOB|,)", text[run[-1].end :][:12])):
        return True
    return _abbreviation(words[0]) and len(words) == 1


_FUNCTION = frozenset(
    "he she it they we you i an a the this that these those his her hers its their our my your who what which when where why how if in on at by to of or and but so as for from with "
    "no not do did does has had have is are was were be been might would could should also then than there here all any both each few more most other some such only own same "
    "patient pt family mother father".split()
)
_NOT_ONLY_PEOPLE = re.compile(r"\s(?:can|cannot|can't|could|will|won't|would|did|does|did not|does not|doesn't|didn't|started|starts|stopped|stops|becomes|became|helps|helped|takes|took|appears|appeared|found|needs|needed|gives|gave|works|worked|noted|called|comes|came|goes|went|looks|looked|is a|is an|was (?:started|taken|given|found|well|at|in|on|reviewed|able|unable|last)|had (?:a|an|no|to|never|two)|has (?:a|an|two|three|four|no|never|been (?:started|given|increased|decreased|stopped|shown|used|associated|held|continued|tapered|reported|detected|isolated|linked|approved|added|switched|found))|is now|is still)\b")
_NOBODY = frozenset("unknown none anonymous unnamed withheld redacted na nil self same other not no yes deceased see refused declined patient test name confidential unavailable".split())


def _trimmed(text: str, run: list[_Word]) -> list[_Word]:
    """Without leading and trailing words of prose; those that are names too stay where a name stands beside them."""
    while run and run[0].letters > 1 and _everyday(run[0]):
        beside = len(run) > 1 and _first(run[0]) and run[0].plain not in english().clinical and (_last(run[1]) or _unknown(run[1]) or run[1].letters == 1)
        listed = len(run) > 1 and "," in text[run[0].end : run[1].start]
        if beside or listed or len(run) == 1:
            break
        run = run[1:]
    while len(run) > 1 and run[-1].letters > 1 and _everyday(run[-1]) and not _last(run[-1]) and run[-1].plain not in english().clinical:
        run = run[:-1]
    while len(run) > 1 and run[-1].plain in _PARTICLES and not run[-1].capital:
        run = run[:-1]
    return run


def _until_prose(run: list[_Word]) -> list[_Word]:
    """Behind a title: the first word is a name; later ones while they may be."""
    kept = run[:1]
    for word in run[1:]:
        if _everyday(word) and not (_first(word) or _last(word)) and word.plain not in _PARTICLES and word.letters > 1:
            break
        kept = [*kept, word]
    return kept


def _score(text: str, run: list[_Word], before: str, after: str) -> float:
    """How sure an unlabelled run is a person's name; 0 where nothing says so."""
    words = [word for word in run if word.letters > 1 and not (word.plain in _PARTICLES and not word.capital)]
    if not words or all(_everyday(word) and not _first(word) and not _last(word) for word in words):
        return 0.0
    verb = bool(_SURE_VERB.match(after) or _POSSESSED.match(after) or _DEMOGRAPHIC.match(after))
    relation, agent = bool(_LEFT_PERSON.search(before)), bool(_LEFT_AGENT.search(before))
    opening = bool(_STATIONS.search(before)) or not before
    if _CREDENTIAL.match(after) and not any(_clinical(w) for w in words) and any(_unknown(w) or _first(w) or (_last(w) and not _everyday(w)) for w in words):
        return 0.9
    return _pair(text, run, words, verb, relation, agent, opening, after) if len(words) > 1 else _single(run, words[0], verb, relation, agent, opening, before, after)


def _pair(text: str, run: list[_Word], words: list[_Word], verb: bool, relation: bool, agent: bool, opening: bool, after: str) -> float:
    if len(words) > 5:
        return 0.0
    if any("," in text[a.end : b.start] for a, b in pairwise(run)):
        return 0.9  # `SURNAME, Given` was looked at when the run was cut
    strange = [word for word in words if _unknown(word)]
    clinical = [word for word in words if _clinical(word)]
    if _first(words[0]) and words[0] not in clinical and len(clinical) < 2 and all(_last(word) or _first(word) or _unknown(word) for word in words[1:]):
        everyday = all(_everyday(word) for word in words)
        listed = len(words) == 2 and _last(words[1]) and (agent or not opening or bool(re.match(r"['’]s\s[a-z]", after)))
        return 0.9 if not everyday or verb or relation or (listed and not words[0].text.isupper()) else 0.0
    if any(_pinyin(a.plain, b.plain) for a, b in pairwise(words)) and len(clinical) < len(words) and not all(_everyday(w) for w in words):
        return 0.85
    if len(strange) == len(words) and not _abbreviation(words[0]):
        return 0.85
    if strange and not clinical and (verb or relation or agent):
        return 0.8
    if strange and not clinical and any(_first(word) and not _everyday(word) for word in words):
        return 0.8
    if (verb or relation) and _first(words[0]) and _last(words[-1]) and (words[0] not in clinical or _DEMOGRAPHIC.match(after)):
        return 0.8
    return 0.0


def _single(run: list[_Word], word: _Word, verb: bool, relation: bool, agent: bool, opening: bool, before: str, after: str) -> float:
    name, everyday, strange = _first(word) or _last(word), _everyday(word), _unknown(word)
    initial = run[0].letters == 1 or bool(re.search(r"\b[A-Z]\.\s?$", before))
    if word.plain in _FUNCTION or word.letters < 2:
        return 0.0
    if _abbreviation(word) and not (strange and relation):
        return 0.0
    weak = bool(_WEAK_AGENT.search(before))
    if initial and (strange or (_last(word) and (not everyday or verb or re.search(r"[a-z,]\s(?:[A-Z]\.\s?)?$", before)))):
        return 0.8
    if relation and (strange or (name and not _clinical(word)) or (name and verb)):
        return 0.85
    if agent and not weak and (strange or (name and not _clinical(word))):
        return 0.8
    if verb and (strange or (name and not everyday)) and not (strange and _NOT_ONLY_PEOPLE.match(after)):
        return 0.8
    if verb and name and (_first(word) or _clinical(word)) and (opening or agent) and not re.match(r"\s(?:will|would|can|could|does|did|has|had|found|started|stopped|takes|needs|helps|helped|notes|noted|gives|gave|calls|is|becomes|was (?:found|started|given|at|in|on|well|taken|last|reviewed|seen in))\b", after):
        return 0.75
    if verb and _first(word) and opening and re.match(r"\s(?:says|said|drove|states|denies|reports|feels|lives|attended|told|asked|thinks|wants)\b", after):
        return 0.75
    if _first(word) and not everyday and word.letters > 3 and not _last_only(word):
        return 0.7
    if _first(word) and not everyday and word.letters > 2 and (agent or _WEAK_VERB.match(after)):
        return 0.7
    if strange and _POSSESSED.match(after):
        return 0.75
    # A lone surname in the middle of a sentence may be a person or an unlisted eponym: a doubt.
    lone = _last(word) and not everyday and word.letters > 3 and not word.text.isupper() and not opening
    return 0.5 if lone and re.search(r"\b(?:the|of|by|to|with|for)\s$", before) and re.match(r"\s(?:team|family|case|boy|girl|child|baby|household|twins|patient)\b", after) else 0.0


def _last_only(word: _Word) -> bool:
    return word.plain not in english().first


_LOWER_CUE = re.compile(r"(?i)(?:\b(?:per|with|by|from|told|called|saw|mr|mrs|ms|dr|miss|son|daughter|wife|husband|mother|father|sister|brother|nurse|to|and|pt|patient|named|dtr|mom|dad|mum|friend|asked)\.?\s)$")
_KIN_NEXT = re.compile(r"\s?\((?:dtr|daughter|son|wife|husband|mom|mum|dad|mother|father|sister|brother|nurse|rn|partner|nok|friend|aunt|uncle)\b")
_LOWER_TITLE = re.compile(r"\b(?:mr|mrs|ms|miss|dr|prof)\.?\s$")


def _lower_case(text: str, words: list[_Word]) -> Iterator[Span]:
    """Names that nobody capitalised: a listed given name with a listed surname, or with a cue; anything behind mr or dr."""
    lists = english()
    for index, word in enumerate(words):
        if word.text[0].isupper() or word.letters < 3:
            continue
        listed = word.plain in lists.first and not _everyday(word)
        following = words[index + 1] if index + 1 < len(words) else None
        before, after = text[max(0, word.start - 14) : word.start], text[word.end : word.end + 16]
        if _LOWER_TITLE.search(before) and not is_word(word.plain) and word.plain not in _NOT_AFTER_TITLE:
            yield Span(word.start, word.end, Kind.NAME, 0.85)
        if not listed:
            continue
        gap = text[word.end : following.start] if following else ""
        if following and following.plain in lists.last and not _everyday(following) and re.fullmatch(r"[ \t._\-]{1,2}", gap) and not _THING.match(text[following.end : following.end + 60]):
            yield Span(word.start, following.end, Kind.NAME, 0.8)
        elif _LOWER_CUE.search(before) or _KIN_NEXT.match(after):
            yield Span(word.start, word.end, Kind.NAME, 0.75)


_SIGNATURE = re.compile(
    rf"(?im)(?:^\s{{0,4}}--?\s?(?P<a>{_LETTER}{{3,20}}(?:[.\s]{_LETTER}{{2,20}})?)\s{{0,2}}(?:\d{{3,4}}|$|/|,)|\b(?:dictated|typed|transcribed|signed|entered|charted|authored|e-?signed|verified)\s(?:by|:|-)\s?:?\s{{0,2}}(?P<b>{_LETTER}{{3,24}})(?=\s?/|$|[.,;\n]|\s\d)|"
    rf"^\s{{0,4}}(?P<c>{_LETTER}{{2,20}})/(?-i:[a-z]{{2,3}})\s?$)"
)


def _signatures(text: str) -> Iterator[Span]:
    """Log-in names under a note: `-- hmurphy 0715`, `Dictated by: SKowalczyk/tr`."""
    for match in _SIGNATURE.finditer(text):
        for group in ("a", "b", "c"):
            if match.group(group) and not all(is_word(plain(word)) or plain(word) in english().clinical for word in re.split(r"[.\s]", match.group(group))):
                yield Span(match.start(group), match.end(group), Kind.NAME, 0.8)


_SPELLED = re.compile(r"(?<![A-Za-z\d])[A-Za-z](?:[ .\-_*·]{1,2}[A-Za-z](?![A-Za-z])){3,30}")


def _spelled(text: str) -> Iterator[Span]:
    """`T e m p e r a n c e`: a name letter by letter."""
    lists = english()
    for match in _SPELLED.finditer(text):
        word = re.sub(r"[^A-Za-z]", "", match.group()).casefold()
        known = word in lists.first or word in lists.last or any(word[:i] in lists.first and word[i:] in lists.last for i in range(2, len(word) - 1))
        if known or any(_pinyin(word[:i], word[i:]) for i in range(2, len(word) - 2)):
            yield Span(match.start(), match.end(), Kind.NAME, 0.8)


_PINYIN = re.compile(
    r"^(?:(?:zh|ch|sh|[bpmfdtnlgkhjqxrzcsyw])?(?:iang|iong|uang|ang|eng|ing|ong|ian|iao|uai|uan|van|ai|an|ao|ei|en|er|ia|ie|in|iu|"
    r"ou|ua|ue|ui|un|uo|a|e|i|o|u|v)'?-?){1,3}$"
)
_PINYIN_SURNAMES = frozenset(
    """wang li zhang liu chen yang huang zhao wu zhou xu sun ma zhu hu guo he gao lin luo zheng liang xie song tang deng han feng
    cao peng zeng xiao tian dong pan yuan cai jiang yu du ye cheng wei su lu ding ren shen yao lv cui zhong tan fan jin shi
    liao jia xia fu fang bai zou meng xiong qin qiu yin xue yan duan lei hou long tao gu mao hao gong shao wan qian dai mo kong
    xiang chang wen kang zuo ouyang sima zhuge""".split()
)


def _pinyin(one: str, two: str) -> bool:
    """Is one of the two a Chinese surname and the other Chinese syllables?"""
    return any(
        surname in _PINYIN_SURNAMES and 2 < len(given) < 16 and given.replace("-", "").isalpha() and bool(_PINYIN.match(given))
        for surname, given in ((one, two), (two, one))
    )


def is_person(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a model's find that read as persons. A find made of words, drugs, findings or eponyms is none, unless
    a title, a kinship or a verb of persons stands beside it."""
    words = _words(text[start:end])
    moved = [_Word(start + w.start, start + w.end, w.text, w.plain, w.capital, w.letters) for w in words]
    for run in _runs(text, moved):
        run = _trimmed(text, run)
        named = [word for word in run if word.letters > 1 and word.plain not in _FUNCTION and word.plain not in _TITLES]
        if not named or all(_abbreviation(word) for word in named):
            continue
        before, after = text[max(0, run[0].start - 70) : run[0].start], text[run[-1].end : run[-1].end + 60]
        if _THING.match(after) or re.match(r"[\-/]?\d", after):
            continue
        left = _LEFT_PERSON.search(before) or _LEFT_FIELD.search(before) or _LEFT_NAMED.search(before) or _LEFT_AGENT.search(before) or _TITLE_BEFORE.search(before)
        cue = bool(left or _SURE_VERB.match(after) or _DEMOGRAPHIC.match(after) or _POSSESSED.match(after))
        strange = [word for word in named if _unknown(word) or ((_first(word) or _last(word)) and not _everyday(word))]
        clinical = [word for word in named if _clinical(word)]
        if (strange and not clinical and (cue or len(strange) == len(named))) or (cue and len(clinical) < len(named) and any(_first(word) for word in named)):
            yield run[0].start, run[-1].end
