# ruff: noqa: E501, SIM905  (a pattern or a word list reads best as one piece)
"""Addresses: anything smaller than a state or a province."""

import re
from collections.abc import Iterator

from clinical_r1.privacy.lexicon import english, is_word, plain
from clinical_r1.privacy.spans import Kind, Span, present
from clinical_r1.text import HAN, HAN_CHARACTER, has_han

_SUFFIX = (
    "Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Circle|Cir|Place|Pl|Square|Sq|Terrace|Ter|"
    "Parkway|Pkwy|Highway|Hwy|Way|Trail|Trl|Alley|Aly|Annex|Arcade|Bayou|Beach|Bend|Bluffs?|Bottom|Branch|Bridge|Brooks?|"
    "Burgs?|Bypass|Camp|Canyon|Cape|Causeway|Centers?|Circles|Cliffs?|Club|Commons?|Corners?|Course|Courts|Coves?|Creek|"
    "Crescent|Crest|Crossing|Crossroads?|Curve|Dale|Dam|Divide|Drives|Estates?|Expressway|Extensions?|Falls?|Ferry|"
    "Fields?|Flats?|Fords?|Forest|Forges?|Forks?|Fort|Freeway|Gardens?|Gateway|Glens?|Greens?|Groves?|Harbors?|Haven|"
    "Heights|Hills?|Hollow|Inlet|Islands?|Isle|Junctions?|Keys?|Knolls?|Lakes?|Land|Landing|Lights?|Loaf|Locks?|Lodge|Loop|"
    "Mall|Manors?|Meadows?|Mews|Mills?|Mission|Motorway|Mount|Mountains?|Neck|Orchard|Oval|Overpass|Parks?|Parkways|Pass|"
    "Passage|Path|Pike|Pines?|Plains?|Plaza|Points?|Ports?|Prairie|Radial|Ramp|Ranch|Rapids?|Rest|Ridges?|River|Roads|Route|"
    "Row|Run|Shoals?|Shores?|Skyway|Springs?|Spurs?|Squares|Station|Stravenue|Stream|Streets|Summit|Throughway|Trace|Track|"
    "Trafficway|Tunnel|Turnpike|Underpass|Unions?|Valleys?|Viaduct|Views?|Villages?|Ville|Vista|Walks?|Rue|Wall|Ways|Wells?|Well"
)
_STATE = (
    "AL|AK|AS|AZ|AR|CA|CO|CT|DE|DC|FL|FM|GA|GU|HI|ID|IL|IN|IA|KS|KY|LA|ME|MH|MD|MA|MI|MN|MS|MO|MT|NE|NV|NH|NJ|NM|NY|NC|ND|MP|"
    "OH|OK|OR|PW|PA|PR|RI|SC|SD|TN|TX|UT|VT|VI|VA|WA|WV|WI|WY|AA|AE|AP"
)
_STATE_NAME = (
    "Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii|Idaho|Illinois|Indiana|"
    "Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan|Minnesota|Mississippi|Missouri|Montana|Nebraska|"
    "Nevada|New Hampshire|New Jersey|New Mexico|New York|North Carolina|North Dakota|Ohio|Oklahoma|Oregon|Pennsylvania|"
    "Rhode Island|South Carolina|South Dakota|Tennessee|Texas|Utah|Vermont|Virginia|Washington|West Virginia|Wisconsin|Wyoming"
)
_WORD = r"[A-Z][A-Za-z'.\-]*"
_UNIT = r"(?:,?\s{0,2}(?:Apt|Apartment|Suite|Ste|Unit|Room|Rm|Floor|Fl|#)\.?\s{0,2}#?[A-Za-z]?\d[\w\-]*)"
_CITY = rf"{_WORD}(?:\s{_WORD}){{0,3}}"
_ABROAD = "Rue|Place|Chemin|Allée|Quai|Impasse|Viale|Piazza|Corso|Calle|Avenida|Plaza|Paseo|Rua|Travessa|Carrer"
_OF = r"(?:(?:de|des|du|del|della|dei|la|las|los|le|les|do|da|dos|di)\s|(?:d|l)['’]){0,2}"
_ZIP = r"\d{5}(?:\s?-\s?\d{4})?"
_TAIL = rf"(?:[\s,;]{{1,3}}{_CITY})?[\s,]{{1,3}}(?:{_STATE}|{_STATE_NAME})\.?(?:[\s,]{{1,3}}{_ZIP})?"

_PROVINCE = (
    "北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南|四川|贵州|云南|陕西|"
    "甘肃|青海|台湾|内蒙古|广西|西藏|宁夏|新疆|香港|澳门"
)
_LEVEL = rf"{HAN_CHARACTER}{{1,7}}?(?:自治区|自治州|特别行政区|地区|省|市|州|盟|区|县|旗|镇|乡|街道|开发区|新区)"
_STREET = rf"{HAN_CHARACTER}{{1,10}}?(?:大街|大道|街道|街|路|巷|弄|胡同|里|道|村|屯|庄|社区|小区|花园|公寓|苑|大厦|广场|家园|新村)(?:[一二三四五六七八九十\d]{{1,2}}段)?"
_DOOR = r"(?:\s?(?:第?\s?[A-Za-z]?[\d一二三四五六七八九十百]{1,5}\s?[-—之]?\s?\d{0,4}|[A-Za-z])\s?(?:号院|号楼|号|弄|栋|幢|座|单元|室|楼|层|组|队|户)(?:之\d)?)"

_PATTERNS = [
    rf"(?<![\d.])\d{{1,6}}(?:-\d{{1,5}}|[A-Z])?\s{{1,2}}(?:[NSEW]\.?\s|North |South |East |West )?(?:{_WORD}|\d{{1,3}}(?:st|nd|rd|th))(?:\s{_WORD}){{0,3}}"
    rf"\s(?:{_SUFFIX})\b\.?{_UNIT}?(?:{_TAIL})?",
    rf"(?<![\d.])\d{{1,6}}\s{{1,2}}(?:{_WORD}\s){{0,3}}{_WORD}{_UNIT}?,\s{{1,2}}{_CITY},\s{{1,2}}(?:{_STATE}|{_STATE_NAME})\b(?:[\s,]{{1,3}}{_ZIP})?",
    rf"(?i:\bp\.?\s?o\.?\s?box)\s?\d+(?:{_TAIL})?",
    rf"\b(?:PSC|Unit|CMR)\s\d{{1,5}}(?:,?\s?Box\s\d{{1,5}})?(?:[\s,]{{1,3}}(?:APO|FPO|DPO)\s(?:AA|AE|AP)(?:\s{_ZIP})?)?",
    rf"\bUS(?:S|NS|NV|CGC|V)\s{_WORD}(?:\s{_WORD})?[\s,]{{1,3}}(?:APO|FPO|DPO)\s(?:AA|AE|AP)(?:\s{_ZIP})?",
    rf"\b(?:APO|FPO|DPO)\s(?:AA|AE|AP)(?:\s{_ZIP})?",
    rf"\b{_CITY},\s?(?:{_STATE}|{_STATE_NAME})\b(?!\s?[\-/]?\d{{1,4}}\b)\.?(?:[\s,]{{1,3}}{_ZIP})?",
    rf"\b(?:{_STATE})\s{{1,2}}{_ZIP}(?!\d)",
    rf"(?i:\b(?:zip|postal|postcode)(?:\s?code)?)\s?(?:is|:|：|of)?\s?{_ZIP}",
    rf"\b{_WORD}(?:\s{_WORD})?\sCounty\b",
    # `77 Rue des Lilas, Lyon`, `Calle Mayor 12`, `Lindenstraße 5, 10115 Berlin`
    rf"(?<![\d.])\d{{1,5}}(?:\s?(?:bis|ter))?,?\s(?i:{_ABROAD}|via|avenue|boulevard)\s{_OF}{_CITY}(?:,\s(?:\d{{4,5}}\s)?{_WORD})?",
    rf"\b(?:{_ABROAD})\s{_OF}{_CITY},?\s(?:n[º°.]\s?)?\d{{1,4}}\b(?:,\s(?:\d{{4,5}}\s)?{_WORD})?",
    rf"\b[A-ZÄÖÜ][\w\-]{{2,30}}(?:straße|strasse|str\.|gasse|platz|allee|weg)\s\d{{1,4}}[a-z]?\b(?:,\s(?:D-)?\d{{4,5}}\s{_WORD})?",
    rf"(?:(?:{_PROVINCE})\s?(?:省|市|自治区|壮族自治区|回族自治区|维吾尔自治区|特别行政区)?\s?)(?:{_LEVEL}\s?){{1,4}}(?:{_STREET}\s?)?(?:{_DOOR}){{0,4}}(?:{HAN_CHARACTER}{{0,8}}?{_DOOR})?(?:\s?\d{{6}}(?!\d))?",
    rf"(?:(?:{_PROVINCE})\s?(?:省|市|自治区)\s?)(?:{_STREET}\s?)?(?:{_DOOR}){{1,4}}(?:\s?\d{{6}}(?!\d))?",
    rf"(?:{_LEVEL}\s?){{0,3}}{_STREET}\s?(?:{_DOOR}\s?){{1,4}}(?:{HAN_CHARACTER}{{0,6}}{_DOOR})?(?:\s?\d{{6}}(?!\d))?",
    r"(?:邮编|邮政编码)\s?[:：是为]?\s?(?P<v>(?:\d\s?){5}\d)",
    rf"(?:{HAN_CHARACTER}{{1,6}}(?:省|市|自治州))(?:{HAN_CHARACTER}{{1,6}}(?:市|区|县|镇|乡|街道|旗))",
]
_UK = "AB|AL|B|BA|BB|BD|BF|BH|BL|BN|BR|BS|BT|CA|CB|CF|CH|CM|CO|CR|CT|CV|CW|DA|DD|DE|DG|DH|DL|DN|DT|DY|E|EC|EH|EN|EX|FK|FY|G|GL|GU|GY|HA|HD|HG|HP|HR|HS|HU|HX|IG|IM|IP|IV|JE|KA|KT|KW|KY|L|LA|LD|LE|LL|LN|LS|LU|M|ME|MK|ML|N|NE|NG|NN|NP|NR|NW|OL|OX|PA|PE|PH|PL|PO|PR|RG|RH|RM|S|SA|SE|SG|SK|SL|SM|SN|SO|SP|SR|SS|ST|SW|SY|TA|TD|TF|TN|TQ|TR|TS|TW|UB|W|WA|WC|WD|WF|WN|WR|WS|WV|YO|ZE"
_NAMED = r"[A-Z][\w'’.\-]{1,30}"
_ROAD = "Street|Avenue|Road|Boulevard|Lane|Crescent|Mews|Parkway|Highway|Turnpike|Close|Terrace|Gardens|Drive|Square|Rd|Ave|Blvd"
_PLACE_KIND = (
    r"Nursing Home|Care Home|Rest Home|Retirement (?:Home|Village|Community)|Assisted Living|(?:Primary|High|Middle|Secondary|Grammar|Junior|Infant|Elementary|Boarding|Nursery|Prep|Public|Day|Sunday) School|Elementary|Academy|Kindergarten|"
    r"Church|Parish|Prison|Barracks|Correctional Facility|Penitentiary|Infirmary|Practice|Hospital|Hospice|Medical Cent(?:er|re)|Health Cent(?:er|re)|Surgery|Residential Home|Shelter|Group Home|Manor|Court House|Community College|Convent|Monastery|Temple|Mosque|Synagogue|Shipyard|Steelworks|Colliery|Mine|Mill|Farm|Ranch|Air Force Base|Naval Base|Army Base"
)
_KINDS_ON = rf"(?:\s(?:{_PLACE_KIND})\b)*"
"""A place is often called by two kinds: Manor Nursing Home, Church Primary School."""
_GENERIC = frozenset(
    "the a an this that our my her his their general community local district regional university children's childrens day teaching psychiatric state county private public high primary medical nursing memorial veterans va academic tertiary outside another "
    "current prior previous mental women's women eye heart cancer emergency field military rural city central national royal surgery same-day in-hospital hospital care home foundation in at from to of and".split()
)
_NARROW = [
    re.compile(pattern)
    for pattern in (
        rf"(?P<v>(?:(?:Flat|Apartment|Unit)\s\w{{1,4}},?\s)?\b\d{{1,4}}[A-Za-z]?,?\s{_NAMED}(?:\s{_NAMED}){{0,3}}(?:,\s{_NAMED}(?:\s{_NAMED}){{0,2}}){{0,3}},?\s(?:{_UK})\d[A-Z\d]? \d[A-Z]{{2}})\b",
        rf"(?i:\b(?:officer|police\w*|sergeant|sgt|deput(?:y|ies)|detective|sheriff|constable|firefighters?)\b)[^\n]{{0,40}}?(?:\b(?:of|from|with)\s(?:the\s)?|,\s|\()(?P<v>{_NAMED}(?:\s{_NAMED})?\s(?:PD|Police|Constabulary|Sheriff['’]?s?(?:\s(?:Office|Department))?))\b",
        rf"(?i:\bemployer(?:,|\sis)\s)(?P<v>{_NAMED}(?:\s(?:&\s)?{_NAMED}){{1,3}})(?=[,.;]|\s[a-z])",
        rf"(?i:\b(?:at|for|outside|near)\s)(?P<v>{_NAMED}(?:\s{_NAMED})?\s&\s{_NAMED}(?:\s{_NAMED})?)(?!\s(?:\d|[IVX]+\b|criteria|grad|scale|score|stag|classif|stain))",
        rf"\b(?P<v>(?:{_UK})\d[A-Z\d]? \d[ABD-HJLNP-UW-Z]{{2}})\b(?<!ST)(?<!ND)(?<!RD)(?<!TH)",
        r"(?i:\b(?:post ?code|zip(?: code)?|postal code|pin ?code|plz|cep|eircode))\s?(?i:is|:|：|of|no\.?)?\s?(?P<v>[A-Z0-9][A-Z0-9]{2,4}[ \-]?[A-Z0-9]{0,5})\b",
        r"\b(?P<v>[ABCEGHJ-NPRSTVXY]\d[A-Z] \d[A-Z]\d)\b",
        rf"(?i:\b(?:on|in|at|from|near|off|of|along|to|down|opposite|outside|beside)\s(?:the\s)?)(?P<v>(?:{_NAMED}\s){{1,3}}(?:{_ROAD}|Way|Court|Place|Green|Hill|Park|Row|Walk|Grove|St)\b)",
        rf"\b(?P<v>(?:{_NAMED}\s){{1,3}}(?:Street|Avenue|Road|Boulevard|Crescent|Parkway|Highway)\b)",
        rf"(?i:\b(?:lives|lived|living|resides|residing|staying|address)\s?(?:in|at|:)\s)(?P<v>(?:{_NAMED}\s){{1,3}}(?:Cottage|House|Farmhouse|Farm|Lodge|Villa|Barn|Hall|Towers?|Flats|Mansions?|Bungalow|Rectory|Vicarage|{_ROAD})(?:,\s{_NAMED}(?:\s{_NAMED}){{0,2}}){{0,3}})",
        r"\b(?P<v>\d{1,5}[A-Z]?(?:-\d{1,5})?\s(?:[A-Z][\w'’.\-]{1,30}\s){1,3}(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Close|Way|Court|Ct|Crescent|Place|Pl|Square|Terrace|Gardens|Grove|Park|Hill|Row|Walk|Mews|Parade|Quay|Wharf)\b)",
        rf"(?P<v>(?:(?:St\.?\s)?{_NAMED}\s){{1,4}}?(?:{_PLACE_KIND})\b{_KINDS_ON})(?!\s(?:Anxiety|Scale|Score|Depression|Elder|Universal))",
        rf"(?i:\b(?:lives|living|resides|address|addr|discharged to|letter to)\b(?:\s(?:at|in)|:)?\s)(?P<v>\d{{1,4}}[A-Za-z]?\s{_NAMED}(?:\s{_NAMED}){{0,2}}(?:,\s{_NAMED}){{0,2}})",
        rf"\b(?P<v>(?:(?:Universitäts)?[Kk]linikum|Krankenhaus|Hôpital|Ospedale|Clinique|Clínica|Hospital (?:de|del|General|Universitario))\s{_OF}(?:la\s)?{_NAMED}(?:[ \-]{_NAMED})*)",
        rf"(?i:\b(?:apt|apartment|flat|unit|suite|room)\s)(?P<v>\d{{1,4}}[A-Z]?,\s{_NAMED}(?:\s{_NAMED}){{0,3}})",
    )
]
_TOWN = re.compile(rf",\s{{1,2}}(?P<t>{_NAMED}(?:[ \-]{_NAMED}){{0,2}})(?=,?\s{{1,2}}(?:{_UK})\d)")
"""The town between a street and a postcode."""
_FROM = re.compile(
    rf"(?i:\b(?:stays|stayed|staying|lives|lived|living|works|worked|working|employed|studies|studied|resides|residing|resident|resided|born|wohnhaft|raised|grew up|native|originally|hails|comes|came here|moved|relocated|emigrated|immigrated|migrated|based|stationed|incarcerated|home|house|flat|farm|ranch|cottage|family|priest|mayor|vicar|pastor|imam|rabbi|town|village|city|suburb|hamlet|borough|municipality|outskirts|citizen|people|refugee|transferred|evacuated|airlifted|shelter|neighbou?rhood|area|parents)"
    rf"(?:\s(?:here|back|recently|alone|down|over|up|out|away|with(?:\s[\w'’\-]+){{1,5}}?|as an?(?:\s\w+){{1,2}}|by himself|by herself))?\s(?:from|in|of|to|near|at|outside|around|for)\s|\b(?:collapsed|fell|fall|shopping|dining|crashed|assaulted|stabbed|mugged|found (?:down|unresponsive|collapsed|wandering|unconscious))(?:\s\w+)?\s(?:in|at|near|outside|inside)\s|\ben route from\s|\b\d{{1,3}}\s?(?:[MF]|yo|y/o)(?:\s\w+)?,?\sfrom\s|\b(?:man|woman|lady|gentleman|boy|girl|student|farmer|teacher|visitor|tourist|worker|driver|miner|(?:retired|former)\s\w+)\sfrom\s|\bcame(?:\s(?:over|back|up|down|here|in))?\sfrom\s)(?:the\s)?(?P<v>{_NAMED}(?:[ \-]{_NAMED}){{0,2}})"
)
_FURTHER = re.compile(
    rf"(?:\s(?:car park|store|station|supermarket|hotel|campus|branch|office|plant|factory|warehouse|[A-Z][a-z]+))?(?:\s(?:in|to|near|outside)\s|,\s)(?P<v>{_NAMED}(?:[ \-]{_NAMED}){{0,2}})"
)
"""`from Tulsa to Boise`, `at Tesco in Slough`, `St. Anne's Hospital in Ghent`."""
_ROLE = re.compile(
    rf"(?i:\b(?:mayor|governor|senator|congress(?:man|woman)|president|prime minister|premier|vice[ -]president|bishop|archbishop|ambassador|chancellor|sheriff|headmaster|headmistress|principal|king|queen|prince|princess|duke|duchess|ceo|cfo|chief executive|director|chair(?:man|woman)|dean|captain|coach|goalkeeper|striker|anchor(?:man|woman)?|editor|conductor|police chief|fire chief|commissioner|councillor|mp|vicar|rector)\s(?:of|for|at)\s(?:the\s)?){_NAMED}(?:\s(?:of\s)?{_NAMED}){{0,3}}"
)
_OFFICE = re.compile(
    rf"(?:某|{_PROVINCE}|{HAN_CHARACTER}{{2}})?(?:省|市|自治区|区|县|镇|乡|村|州)(?:委书记|委副书记|委常委|长(?!期|大|年|短|度|约|径|满|海|海路)|副[市县省区]长|政协[副]?主席|人大[副]?主任|人大代表|政协委员|公安局长|教育局长|卫生局长|法院院长|检察长)|(?:副)?(?:市长|县长|省长|省委书记|市委书记|县委书记|国家主席|总理|部长(?![期大时短约出有满径宽]))"
)
_VALUE_ZH = rf"[{HAN}A-Za-z0-9（）()\-—·#]"
_LABELLED_ZH = re.compile(
    rf"(?:工作单位|送检单位|(?:就诊|送检|转诊|来源|检查)(?:医院|机构)|单位名称|单位地址|就读学校|学校名称|籍贯|户籍(?:地址|所在地)?|户口(?:所在地|地址)?|出生地|住址|地址|家庭住址|家庭地址|现住址|现住地|居住地|常住地|通讯地址|联系地址|联系人地址|寄送地址|收件地址|事发地点|事故地点)\s?[:：是为]\s?(?P<v>{_VALUE_ZH}{{2,40}})"
)
_LIVES_ZH = re.compile(
    rf"(?:现住|家住|现居|暂住|租住|寄住|借住|居住[于在]|定居[于在]?|住[于在]|户籍|籍贯|祖籍|原籍|生于|出生于|出生在|来自|就职于|任职于|供职于|毕业于|就读于|自小生活在|长期生活[于在])\s?(?!院|我院|我科|本院|该院|外院|医院|ICU|病|监护|单人|潮湿|高原|平房|楼房|农村|山区|城镇|出租|地下|一楼|二楼|宿舍|养老院|院外|高海拔|海边|牧区|疫区|本地|当地|外地|国外|此|家中|同一|子女|儿子|女儿|其)(?P<v>{HAN_CHARACTER}{{2,20}}?(?:[\dA-Za-z一二三四五六七八九十]{{1,5}}(?:号|栋|幢|楼|单元|室|弄|组|队|层){HAN_CHARACTER}{{0,6}}){{0,4}})(?=[，。；,;、\s（(]|$|独居|多年|长期|近|打工|务工|后|时|期间|的|\d)"
)
_STAYS_ZH = re.compile(
    rf"(?<![居现家同暂入出收])住(?:在|于)?(?P<v>{HAN_CHARACTER}{{2,12}}?(?:小区|村|路|街|镇|乡|里|苑|园|公寓|花园|新村|社区|大院|胡同|弄|巷|庄|屯|寨|家属院|宿舍区))(?!{HAN_CHARACTER}{{0,2}}(?:病|症))"
)
_PLACE_ZH = re.compile(
    rf"(?:在|位于|由|从|到|自|至|去|往|赴|经|为|系|是|转诊自|送[至往到]|转[至往入到]|于)(?P<v>{HAN_CHARACTER}{{2,14}}?(?:厂区|厂|集团|公司|医院|卫生院|卫生所|卫生室|诊所|门诊部|研究院|研究所|学院|大学|中学|小学|学校|幼儿园|托儿所|养老院|敬老院|福利院|疗养院|工地|煤矿|铁矿|矿山|监狱|看守所|部队|农场|林场|牧场|村|镇|乡|超市|酒店|饭店|宾馆|商场|市场|车站|机场|派出所|教堂|寺)(?:[（(]{HAN_CHARACTER}{{1,8}}[)）])?)"
)
_GENERIC_ZH = re.compile(
    r"^(?:(?:当地|外地|外院|本地|上级|下级|基层|私立|私人|公立|专科|综合性?|三甲|三级|二级|一级|甲等|社区|附近|多家|几家|某家?|我|我们|本|该|此|其他|另一?家?|一家|这家|那家|儿童|妇幼(?:保健)?|妇产|肿瘤|中医|中西医结合|口腔|眼科|精神(?:病|卫生)?|传染病|胸科|老年|康复|整形|美容|人民|中心|县|市|省|区|镇|乡|村|州|级|大|小|新|个体|乡村|农村|城市|国外|国内|境外|海外|家乡|老家|原籍|户籍|医学|医科|大学|附属|教学|定点|发热|急诊|方舱|隔离|军队|部队|化工|制鞋|电子|食品|家具|印刷|纺织|油漆|皮革|水泥|造纸|石棉|服装|钢铁|机械|工|建筑|养殖|野战|外|职工|化肥|农药|电池|玻璃|陶瓷|海鲜|农贸|菜|批发|花鸟|活禽|大型|小型|家|同一|不同|各|某些|有关|相关|为|的|就诊|治疗|住院|门诊)*(?:市|县)?)(?:医院|卫生院|卫生所|卫生室|诊所|门诊部|学校|工厂|厂区|厂|公司|集团|工地|市场|超市|商场|村|镇|乡|酒店|饭店|农场|小学|中学|大学|学院|幼儿园|养老院|车站|部队|监狱|牧场|林场|机场|煤矿|矿山|铁矿|研究所|研究院|宾馆|疗养院|敬老院|福利院|派出所)$"
)
_ETYM = re.compile(
    r"[病炎症癌瘤痛药肿疸咳喘泻疹痒胃肝脾肾肺胰胆脑髓骨腱血尿便]|细胞|组织|腺|异位|神经|动脉|静脉|血管|淋巴|黏膜|皮肤|肌|胚|母体|双侧|左|右|上述|下述|部位|器官"
)
_COMPILED = [re.compile(pattern) for pattern in _PATTERNS]


_FROM_STEMS = tuple(
    "live living works worked working employed studie resid born wohnhaft raised grew native originally hails come came moved relocat migrat based stationed incarcerat home house flat farm ranch "
    "cottage family priest mayor vicar pastor imam rabbi town village city suburb hamlet borough municipal outskirts citizen people refugee transferred "
    "evacuated airlifted shelter neighb area parents came from collapsed fell fall stay shopping dining crashed assaulted stabbed mugged found".split()
)
_ROLE_OF = re.compile(r"(?:or|nt|er|al|op|en|an|ng|ss|ce|ke|ef|ch|ve|mp|ar|ss|or|man|eo|fo) (?:of|for|at) ")


_FROM_ZH = re.compile(
    rf"(?:从|由|自)(?P<v>(?:(?:{_PROVINCE})[省市]?{HAN_CHARACTER}|{HAN_CHARACTER}州|{HAN_CHARACTER}{{2}}[市县区镇乡]){HAN_CHARACTER}{{0,6}}?)(?=转[来入院]|赶来|来[院我]|返回)|(?<!{HAN_CHARACTER})(?P<w>{HAN_CHARACTER}{{2,3}}[市县区](?:中级)?人民(?:法院|检察院|医院))"
)


def find_addresses(text: str) -> Iterator[Span]:
    """Addresses in folded text. The whole address is one span, province and state included."""
    lowered, han = text.casefold(), has_han(text)
    for pattern in _COMPILED:
        if not han and HAN in pattern.pattern:
            continue
        for match in pattern.finditer(text):
            group = "v" if "v" in pattern.groupindex else 0
            city = re.match(r"(?:[A-Z][\w'’.\-]*\s?)+(?=,)", match.group(group)) if group == 0 else None
            shouted = city is not None and city.group().isupper() and not re.search(r"\d{5}", match.group())
            if (
                not _ETYM.search(match.group(group))
                and not shouted  # `NSTEMI, MI`
                and (city is None or _place_end(city.group(), every=True))
            ):
                yield Span(match.start(group), match.end(group), Kind.ADDRESS)
    for pattern in _NARROW:
        for match in pattern.finditer(text):
            start = _past_generic(text, match.start("v"), match.end("v"))
            if start is not None:
                town = _TOWN.match(text, match.end("v")) if re.match(r"\d", match["v"]) else None
                yield Span(start, town.end("t") if town else match.end("v"), Kind.ADDRESS)
                yield from _further(text, match.end("v"))
    for match in _FROM.finditer(text) if present(_FROM_STEMS, lowered) else ():
        end = _place_end(match.group("v"))
        if end:
            yield Span(match.start("v"), match.start("v") + end, Kind.ADDRESS)
            yield from _further(text, match.start("v") + end)
    for pattern in (_ROLE, _OFFICE) if han or _ROLE_OF.search(lowered) else ():
        for match in pattern.finditer(text):
            yield Span(match.start(), match.end(), Kind.OTHER)
    for pattern in () if not han else (_LABELLED_ZH, _LIVES_ZH, _STAYS_ZH, _PLACE_ZH, _FROM_ZH):
        for match in pattern.finditer(text):
            group = "v" if match["v"] else "w"
            value = match.group(group)
            if (
                not _ETYM.search(value)
                and not _GENERIC_ZH.match(value)
                and not re.match(r"(?:不详|未知|无业|退休|无$|农民|务农)", value)
            ):
                yield Span(match.start(group), match.end(group), Kind.ADDRESS)


def _further(text: str, position: int) -> Iterator[Span]:
    """The places that follow one that ends at `position`."""
    while (match := _FURTHER.match(text, position)) and (end := _place_end(match["v"])):
        position = match.start("v") + end
        yield Span(match.start("v"), position, Kind.ADDRESS)


def _past_generic(text: str, start: int, end: int) -> int | None:
    """Start without leading words that name no place (`The Community Hospital`); None where nothing else is left."""
    words = list(re.finditer(r"[^\s]+", text[start:end]))
    numbered = bool(re.match(r"[\dA-Z]{1,5}\d", text[start:end]))
    while words and not numbered and words[0].group().casefold().strip(".,") in _GENERIC:
        words = words[1:]
    if " & " in text[start:end] and any(plain(word.group()) in english().clinical for word in words):
        return None  # `Hunt & Hess`
    if not words or (len(words) == 1 and not numbered and not re.search(r"\d", words[0].group())):
        return None
    if all(plain(word.group().strip(".,")) in _KINDS or word.group().casefold() in _GENERIC for word in words):
        return None
    if words[-1].group().startswith(("Surgery", "Practice")) and all(is_word(plain(word.group())) for word in words):
        return None  # `Double Eyelid Surgery` is an operation, `Thornhill Surgery` a practice
    return start + words[0].start()


_KINDS = frozenset(word.casefold() for word in re.findall(r"[A-Z][a-z]+", _PLACE_KIND + " " + _ROAD))


_BEFORE_PLACE = frozenset(
    "new san st el la los las da le port fort mount north south east west great saint santa rio upper lower cape lake".split()
)


def _place_end(value: str, every: bool = False) -> int:
    """Length of the leading words of `value` that are no country, state, everyday word or thing of the clinic; 0: none."""
    end, opened = 0, False
    for word in re.finditer(r"[\w'’.]+", value):
        bare = plain(word.group().strip(".'’"))
        if not end and bare in _BEFORE_PLACE and re.match(r"[ \-][A-Z]", value[word.end() :]):
            opened = True
            continue  # `New Delhi`, `Port Talbot`
        everyday = bare in english().clinical or (is_word(bare) and not every and not opened) or len(bare) < 3
        if everyday and not end:
            return 0
        if everyday:
            break
        end, opened = word.end(), False
    return end
