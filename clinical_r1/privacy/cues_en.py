# ruff: noqa: E501, SIM905  (a pattern or a word list reads best as one piece)
"""What stands around a name in Latin letters: titles, kinship, labels, who acts on whom, what only people do, things that
bear a person's name. Patterns that end in `$` are searched in the text before a name, the others matched behind it."""

import re

from clinical_r1.text import HAN_CHARACTER

PARTICLES = frozenset("de del della dello la van von der den di da bin bint al el le dos das do du ibn ben af av zu ter ten y ul ur ap st".split())  # fmt: skip
TITLES = frozenset(
    "mr mrs ms miss mx dr drs prof professor doctor rev reverend sgt sergeant capt captain nurse sister sir dame lady lord judge officer detective "
    "attorney pastor rabbi imam councillor cllr deputy colonel lieutenant constable inspector headteacher madam mme mlle monsieur señor señora sr sra srta frau herr dott dra matron father brother midwife paramedic mister master".split()
)
SHORT_TITLES = frozenset("mr mrs ms mx dr drs prof rev sgt capt st sr sra".split())
NOT_AFTER_TITLE = frozenset(
    "in on at and or the a an to of is was who called notes notes: stated saw visit notified consulted aware team station practitioner call ordered informed "
    "manager specialist consultant led bank post line staff home mary joseph unit assistant educator sheet facility office order notes records appointment".split()
)
RELATION = (
    r"(?:son|daughter|husband|wife|mother|father|mum|mom|dad|brother|sister|aunt|uncle|niece|nephew|cousin|partner|fianc[ée]e?|spouse|girlfriend|boyfriend|"
    r"friend|neighbou?r|carer|caregiver|guardian|grandson|granddaughter|grandmother|grandfather|grandma|grandpa|twin|roommate|colleague|stepson|stepdaughter|"
    r"stepfather|stepmother|sibling|in-law|(?:baby|babies|child|children|twins|widow|widower|parents|mother|father|son|daughter|wife|husband|brother|sister|carer|friend) of|lady|gentleman|interpreter|landlord|landlady|teacher|coach|employer|classmate|leader|babysitter|cleaner|driver|nok|nanny|childminder|tutor|trainer|boss|supervisor|lodger|tenant|flatmate|housemate|volunteer|bystander|crew|"
    r"social worker|therapist|physio(?:therapist)?|dietitian|pharmacist|caseworker|student|registrar|consultant|surgeon|physician|anaesthetist|anesthesiologist|"
    r"cardiologist|oncologist|neurologist|psychiatrist|resident|intern|midwife|nurse|paramedic|chaplain|constable|officer|babies|baby|toddler|boy|girl|patient|pt)"
)
LEFT_PERSON = re.compile(
    rf"(?i)(?:\b{RELATION}s?(?:\s(?:is|was|named|called))?[,:]?[ \t]{{0,2}}[(\"“']?|\b(?:family|parents|children|siblings|kids|sons|daughters|twins|couple)\s?[(,:]?\s?|\bparents of\s|\bbaby\s(?:boy|girl)\s|\b(?:child|infant|kid|teenager|caller)\s?[(,:]\s?)\Z|(?:患者|病人|患儿|产妇|家属|医[生师]|护士|丈夫|妻子|父亲|母亲|儿子|女儿|朋友|同事|主任|教授|外籍|名叫|叫|由|与|和|请|经)\s?[:：]?\s?$|(?:姓名|患者|病人|患儿)\s?[:：]?\s?{HAN_CHARACTER}{{2,4}}\s?[（(]\s?$"
)
LEFT_NAMED = re.compile(
    r"(?i)(?:\b(?:named|nicknamed|(?:he|she|who|patient|boy|girl|man|woman|child|widely|locally|affectionately|better|usually) (?:is |was )?(?:known|called) as|(?:he|she|who|patient|boy|girl|man|woman|child|locally|affectionately) (?:is |was )?known as|goes by|answers to|(?:calls?|called) (?:me|him|her|them|it|himself|herself)|known to \w+ as|alias|née|maiden name|formerly|prefers to be called|likes to be called|christened|introduces (?:him|her)self as)\s{0,2}[:,]?\s{0,2}[\"“'‘]?)$"
)
LEFT_FIELD = re.compile(
    r"(?i)(?:(?:^|[\n;,.|\t(]|\s{2})\s{0,4}(?:(?:patient|pt|client|full|last|first|sur|family|given|middle|maiden|mother'?s|father'?s|legal|preferred)?[ \-]?(?:name|names)|patient|pt|attending(?: physician)?|ordering physician|referring (?:physician|doctor|provider)|"
    r"provider|physician|surgeon|assistant|anesthesi\w+|anaesth\w+|signed(?: off)?(?: by)?|electronically signed(?: by)?|e-?signed(?: by)?|signature|dictated(?: by)?|dictating|transcribed(?: by)?|typed(?: by)?|reviewed(?: by)?|verified(?: by)?|authenticated(?: by)?|"
    r"reported(?: by)?|approved(?: by)?|author(?:ed by)?|cc|next of kin|nok|ice|emergency contact|contact(?: person)?|pcp|gp|consultant|resident|interpreter|guardian|spouse|mother|father|referred by|seen by|accompanied by|informant|historian|witness(?:ed by)?|"
    r"responsible clinician|nurse|midwife|radiologist|pathologist|operator|performed by|requested by|requesting \w+|cosigner|scribe|proxy|poa|hcp|dear|regards|sincerely|yours sincerely|yours faithfully|kind regards|best wishes|carer|key ?worker)\s?(?:(?:is|was)\s|[:：=,\-#]|\n)\s{0,3}|"
    r"(?:\bname\s?(?:is|was|[:：=])\s{0,2}|\b(?:signed|dictated|transcribed|reviewed|verified|authored|reported|typed|checked|countersigned|cosigned) by:?\s{1,2}))$"
)
LEFT_AGENT = re.compile(
    r"(?i)(?:\b(?:on|upon|at) (?:arrival|examination|exam|review|admission|presentation|discharge|triage|follow-?up|home),?\s|\b(?:taken|seen|reviewed|dictated|signed|written|performed|accompanied|brought(?: in)?|witnessed|examined|referred|assessed|noted|drawn|collected|told|given|done|found|raised|cared for|supported|visited|escorted|inserted|placed|confirmed|discussed|requested|called|paged|obtained|provided|translated|interpreted|drained|sited|admitted|consented|attended|transported) by\s|"
    r"\b(?:spoke|speak|speaking|spoken|discussed|discussion|talked|talks|met|meeting|conversation|conferred|liaised|lives|living|stays|resides|chat|rounded|reviewed|agreed|counselled|call|appointment|visit)\s(?:\w+\s)?with\s|\b(?:spoke|speak|speaking|spoken|talked|explained|handed|given|listening|reported|referred|letter|message|handover|married|thanks|grateful|known)\s(?:\w+\s)?to\s|"
    r"\b(?:history|referral|letter|call|message|interpreter|note|report|handover|information|consent|email|e-mail|fax|update|gift|samples?)\s(?:\w+\s)?from\s|"
    r"\b(?:i|we|they|she|he|team|to|and)\s(?:also\s)?(?:saw|met|see|reviewed|examined|visited|told|asked|called|phoned|rang|paged|consulted|thanked|counselled|informed|advised|contacted|invited|assessed|helped|escorted|woke|found)(?:\swhether|\sif|\sthat|\swhy)?\s|"
    r"\b(?:asked|told|informed|notified|contacted|phoned|rang|paged|visited|helped|met|saw|seen|discuss|thank|thanks to|inform|notify|contact|ask|tell|discharged|sitting next to|beside)(?:\swhether|\sif|\sthat|\swhen)?\s|\b(?:him|her|them)self as\s|\basking (?:me|us) to (?:see|review|assess)\s|\bobtained from\s|\bthank(?:s| you)(?: very much)? for (?:seeing|reviewing|referring|asking|assessing|accepting)\s|\bdiscussed [\w ]{1,40} with\s|\bthe help of\s|\bper\s|"
    r"\b(?:whether|because|when|while|after|before|since|until|once|if|that|says|said|states|and|but|when|as|so|although|though|then|today|this morning|yesterday|overnight|tonight|hello|hi|hey|dear|thx|thanks|cheers|sorry)\s|\b(?-i:RN|NP|PC|LPN|CNA|EN|WPC|EMT|HCA|Insp|Cst)\s|"
    r"\bcare of\s|\bc/o\s|\b(?:message|note) for\s|\btell\s|\battn:?\s|\bcc:?\s|\bd/w\s|\bs/b\s|\bon behalf of\s|\bre:?\s)$"
)
WEAK_AGENT = re.compile(
    r"(?i)\b(?:because|when|while|after|before|since|until|once|if|that|and|but|as|so|although|though|then|today|this morning|yesterday|overnight|tonight|re:?)\s$"
)
SURE_VERB = re.compile(
    r"(?:\s(?:also|now|still|then|today|again|just|really|always|never|usually|first|had|has|have|has been|was|is|who|later|himself|herself|clearly|only|both))?\s(?:c/o|p/w|says|said|states|stated|reports|reported|denies|denied|complains|complained|describes|described|lives|lived|works|worked|drove|drives|walks|walked|smokes|smoked|drinks|"
    r"drank|asks|asked|told|tells|wants|wanted|agrees|agreed|refuses|refused|consents|consented|declines|declined|understands|understood|feels|felt|thinks|thought|believes|believed|notices|noticed|noted|notes|phoned|rang|visits|"
    r"visited|attends|attended|arrived|arrives|came|comes|went|goes|returned|returns|fell|sleeps|slept|ate|eats|took|takes|tolerated|underwent|delivered|moved|moves|gave|gives|needs|needed|likes|loves|plays|played|cries|cried|hopes|hoped|wishes|"
    r"prefers|struggles|insists|insisted|admits|admitted|recalls|remembers|forgot|forgets|retired|weighs|appears|appeared|looks|looked|became|becomes|stopped|stops|started|starts|found|tried|tries|spoke|speaks|called|calls|missed|skipped|knows|knew|explained|expressed|requested|requests|woke|wakes|checks|helps|helped|brought|brings|will|would|can|cannot|could|did|does|does not|did not|didn't|doesn't|won't|can't|reviewed|examined|performed|recommended|recommends|advised|suggests|suggested|wrote|signed|witnessed|assisted|"
    r"is a \d|is an? (?:\d|pleasant|elderly|young|delightful|lovely|retired|frequent|former|known|single|married|widowed|right|left|nurse|teacher|farmer|student|smoker|man|woman|boy|girl|lady|gentleman)|is (?:doing|improving|well|recovering|comfortable|alert|oriented|awake|eating|drinking|happy|unhappy|afebrile|stable|asymptomatic|keen|anxious|aware|here|living|married|pregnant|independent|mobile|still|now|back|unable|able)|"
    r"was (?:diaphoretic|pale|drowsy|confused|agitated|unresponsive|cyanotic|jaundiced|lethargic|combative|restless|breathless|intubated|extubated|ambulating|weaned|admitted|discharged|seen|reviewed|referred|born|brought|transferred|advised|counselled|counseled|found|told|asked|started|taken|given|well|at|in|on|able|unable|accompanied|comfortable|alert|happy|upset|tearful|anxious|living|working|walking|sleeping|driving|visited|escorted|last|adopted|raised|informed|contacted)|were (?:at|seen|present|informed|told|updated|both|here)|has (?:had|been|two|three|four|no|never|lived|worked|received|improved|recovered|type|a history|since|lost|gained|stopped|a|an|agreed|refused|declined|asked)|had (?:had|been|a|an|no|received|his|her|never|two|to))\b"
)
WEAK_VERB = re.compile(
    r"\s(?:is|was|has|had|were|presents|presented|remains|developed|continues|continued|received|and|who|whose|showed|responded|required)\b"
)
POSSESSED = re.compile(
    r"(?:'s|’s|s'|s’)\s(?:mother|father|mum|mom|dad|parents|wife|husband|son|daughter|family|sister|brother|partner|carer|room|bed|house|home|chart|notes|case|care|history|symptoms|condition|appointment|request|wishes|GP|blood|pain|mood|medications?|results|labs?|wound|school|birth|teacher|insurance|phone|address|employer|lawyer)\b"
)
DEMOGRAPHIC = re.compile(
    r"(?:\s[MF][ /]{0,2}\d{1,3}\b(?![.\d])|\s(?:is|was)\s(?:an?\s)?\d{1,3}[ \-]?(?:y/?o\b|years?\b)|\s?(?:先生|女士|小姐|医[生师]|教授|主任|护士|同志|老师)|[，,（(\s]{0,2}[男女](?!性)|\s?(?:诉|自诉|要求|自述|因|今日|表示|说)|\s?[,(]?\s?(?:aged\s)?\d{1,3}\s?(?:[MFmf]\b|y/?o\b|yo\b|years?\b|yrs?\b|-year)|,\s\d{2},|\s?\((?:[a-z]+\s)?(?:dtr|daughter|son|wife|husband|mom|mum|dad|mother|father|sister|brother|nurse|rn|partner|nok|pt|he|she|they|aunt|uncle|niece|nephew|friend|carer|neighbou?r)\b|\sand (?:her|his|their)\s(?:family|wife|husband|mother|father|son|daughter|children|parents|partner|carer)\b|,\s(?:the|his|her|their|a|an)\s(?:\w+\s)?(?:mother|father|wife|husband|son|daughter|sister|brother|partner|patient|nurse|surgeon|carer|neighbour|friend|physician|aunt|uncle|grandmother|grandfather|interpreter|lady|gentleman|man|woman)\b|\s{0,2}[,|]?\s{0,2}(?:DOB|MRN)\b|,\swho\s)"
)
CREDENTIAL = re.compile(
    r",?\s{0,2}(?:M\.?D|D\.?O|R\.?N|N\.?P|P\.?A(?:-C)?|Ph\.?D|L\.?P\.?N|PharmD|DDS|MBBS|MBChB|FRC\w+|MRC\w+|FACP|FACS|LCSW|CRNA|CNM|DPM|DNP|BSN|Jr|Sr|Esq|II|III|IV)\b\.?"
)
THING = re.compile(
    r"(?:['’]s?)?(?:[\s\-](?:[a-z]+|[A-Z][a-z]+))?[\s\-](?:diseases?|syndromes?|signs?|tests?|phenomen\w+|procedure|scores?|scale|criteria|lymphomas?|tumou?rs?|sarcoma|thyroiditis|contracture|palsy|tetralogy|cells?|bod(?:y|ies)|stain(?:ing)?|"
    r"fractures?|ulcers?|o?esophagus|ana?emia|disorder|dystrophy|neuropathy|catheter|tube|method|mano?euvres?|maneuvers?|reflex|murmur|rash|nodes?|nodules?|lines?|classification|staging|stage|index|respirations?|spots?|chorea|ataxia|law|triad|pouch|duct|gland|loop|space|"
    r"ring|point|angle|encephalopathy|deformity|hernia|position|view|operation|repair|shunt|bypass|solution|agar|reaction|effect|virus|bacillus|macroglobulin\w+|granulomatosis|purpura|nephropathy|cardiomyopathy|arthropathy|amyloidosis|inclusions?|equation|curves?|granules?|"
    r"gait|harness|splint|drain|collar|frame|stent|valve|graft|flap|incision|clamp|retractor|forceps|needle|plate|rods?|sounds?|nail|screws?|sequence|motif|box|protein|antigen|antibod\w+|factor|bundle|fibers?|fibres?|ligament|fascia|muscle|nerve|ganglion|canal|foramen|fossa|artery|vein|plexus|"
    r"block|blocks|anesthesia|technique|approach|regimen|protocol|trial|study|study group|formula|lesion|cyst|joint|foot|knee|hip|toe|arthritis|hepatitis|nephritis|palsies|psychosis|dementia|headache|neuralgia|epilepsy|seizures?|cramps?|teeth|lens|chart|plot|model|system|layer|"
    r"crisis|cirrhosis|cancer|carcinoma|melanoma|leuka?emia|nuclei|nucleus|eyes?|myeloma|goit(?:er|re)|coma|fever|cough|jaundice|pain|gangrene|abscess|wave|waves|segment|interval|block|pattern|blast|pressure|flow|units?|ratio|level|levels|assay|culture|smear|biopsy|ultrasound|gas|film|injection|tablets?|capsules?|cream|inhaler|patch|pump|"
    r"Disease|Syndrome|Hospital|Clinic|University|Medical|Center|Centre|Institute|Foundation|Score|Scale|Sign|Test|Index|Questionnaire|Inventory|Purpura|Lymphoma|Fracture|Palsy|Ring|Virus)\b"
)
STATIONS = re.compile(r"(?:^|[.!?:;\n]|\n\s?[-*•]|\d\.)\s{0,3}[\"“(]?$")
