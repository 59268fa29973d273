"""The closed word lists that captions and phrases are read with."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARTICLES = _words("a an the this these those its his her their my your our another each every some any both all")
NEGATIONS = _words("no not without except never neither nor non nobody nothing")
NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12,
}  # fmt: skip
VAGUE_COUNTS = _words("several many few multiple various numerous countless more most other")

# Colour words: name in use -> the term that colors.py knows.
CHROMATIC = {
    "red": "red", "crimson": "red", "scarlet": "red",
    "orange": "orange",
    "yellow": "yellow", "gold": "yellow",
    "green": "green", "lime": "green",
    "cyan": "cyan", "turquoise": "cyan", "teal": "cyan", "aqua": "cyan",
    "blue": "blue",
    "purple": "purple", "violet": "purple",
    "pink": "pink", "magenta": "magenta", "fuchsia": "magenta",
}  # fmt: skip
ACHROMATIC = {
    "black": "black", "white": "white", "grey": "gray", "gray": "gray", "silver": "gray",
    "brown": "brown", "beige": "brown", "tan": "brown",
}  # fmt: skip
MANY_COLORED = _words(
    "colorful colourful multicolored multicoloured multicolor striped checkered checked plaid patterned spotted "
    "dotted rainbow tie-dyed transparent camouflage floral"
)
OTHER_COLORS = _words(
    "navy maroon indigo olive khaki lavender peach salmon coral ivory cream charcoal bronze copper burgundy mint "
    "mauve rose-colored ochre amber"
)
TONES = _words("light dark bright pale deep vivid reddish bluish greenish yellowish pinkish")

SIZES = {
    "small": "small", "little": "small", "tiny": "small", "smaller": "small", "smallest": "small",
    "big": "large", "large": "large", "huge": "large", "giant": "large", "bigger": "large", "biggest": "large",
    "larger": "large", "largest": "large",
}  # fmt: skip
POSITIONS = {
    "left": "left", "leftmost": "left", "left-hand": "left",
    "right": "right", "rightmost": "right", "right-hand": "right",
    "top": "top", "upper": "top", "topmost": "top", "uppermost": "top",
    "bottom": "bottom", "lower": "bottom", "bottommost": "bottom", "lowest": "bottom",
    "middle": "middle", "center": "middle", "centre": "middle", "central": "middle",
}  # fmt: skip
DEPTHS = _words("background foreground distance front back rear")
PLACES = _words("side half corner edge part hand end area section portion quarter")
PICTURES = _words("picture image photo photograph frame scene shot screen drawing canvas view")

# What the grounder can look for.
SHAPES = {
    "circle": "circle", "disc": "circle", "disk": "circle", "dot": "circle",
    "ellipse": "ellipse", "oval": "ellipse",
    "square": "square", "rectangle": "rectangle", "triangle": "triangle", "diamond": "diamond", "rhombus": "diamond",
    "pentagon": "pentagon", "hexagon": "hexagon", "star": "star",
}  # fmt: skip
FACES = _words("face")
PEOPLE = _words(
    "person man woman boy girl lady gentleman guy child kid human adult teenager astronaut officer soldier sailor "
    "worker player student teacher doctor nurse artist singer politician scientist engineer photographer musician "
    "mother father daughter son brother sister friend wife husband bride groom dude fellow people pilot chef waiter "
    "policeman policewoman fireman businessman businesswoman athlete actor actress customer model"
)
ANYONE = _words("person people human adult")
GREENERY = _words("greenery foliage vegetation grass lawn forest meadow")
PLANTS = _words("leaf plant bush shrub tree fern hedge")  # looked for in the plural only, as greenery
SKIES = _words("sky")

# Things that are mostly of one colour all over, so that the region of that colour is about the thing.
ONE_COLORED = _words(
    "ball balloon apple orange lemon banana tomato strawberry cherry pepper pumpkin flower rose tulip sunflower "
    "dahlia blossom heart arrow cross sphere cube box block brick can ball cup mug bowl plate saucer bucket bag purse "
    "suitcase umbrella kite tent hat cap helmet shirt t-shirt jacket coat sweater hoodie suit dress skirt scarf vest "
    "apron towel blanket curtain pillow sofa couch cushion door sign car van bus truck frisbee hydrant mailbox sun "
    "moon candle crayon pencil thing object blob patch region shape buoy cone cylinder robe jersey gown uniform "
    "jumpsuit spacesuit raincoat disc leaf ribbon circle ellipse"
)
# Things of one colour that look like a disc from anywhere.
ROUND = _words("ball balloon sun moon disc sphere apple orange tomato cherry circle")
# Heads whose colour region would be the wrong thing, or part of one: never looked for.
BODY_PARTS = _words(
    "hand arm leg foot eye ear nose mouth lip hair head neck shoulder finger thumb beard mustache moustache knee "
    "elbow back chest cheek chin forehead skin tooth toe tongue tail paw wing beak snout fur whisker feather horn "
    "hoof eyebrow eyelash smile nail muzzle claw mane collar sleeve body"
)
ANIMALS = _words(
    "animal cat kitten dog puppy bird horse pony cow calf bull sheep lamb goat pig elephant zebra giraffe lion tiger "
    "bear panda monkey gorilla raccoon fox wolf deer rabbit squirrel mouse rat hamster fish shark whale dolphin duck "
    "goose swan chicken rooster hen eagle owl parrot pigeon seagull penguin snake lizard turtle frog butterfly bee "
    "spider insect ant camel donkey kangaroo koala leopard cheetah crocodile hippo rhino seal otter beaver bat tabby "
    "flamingo peacock crab lobster snail worm beetle ladybug dragonfly"
)
IMAGINARY = _words(
    "unicorn dragon ghost alien fairy mermaid monster wizard witch zombie angel demon elf dinosaur troll"
)
MANY_COLORED_THINGS = _words(
    "flag painting poster crowd market city town village street room kitchen bedroom bathroom landscape photo picture "
    "graffiti mural map screen television tv book magazine newspaper bookshelf shelf store shop building skyline "
    "rainbow food meal pizza salad sandwich traffic group family team pair couple"
)

# Heads that name no object: left out of the expressions of a caption.
NOT_OBJECTS = (PICTURES | DEPTHS | PLACES | _words(
    "left right top bottom middle center centre close-up close closeup day night morning afternoon evening time way "
    "fun love moment style action direction kind type sort lot lots variety number plenty couple pose conversation "
    "game order place position use case fact rest reason while bit black-and-white color colour daylight dusk dawn "
    "sunset sunrise summer winter spring autumn weather season year minute hour today air inside outside display "
    "focus motion look attention something someone anything everyone everything nothing one ones each other others "
    "next first last version selfie portrait snapshot"
)) - _words("hand")  # fmt: skip
# "a cup of espresso" is one thing; the words before "of" in such a phrase.
OF_HEADS = _words(
    "cup mug glass bowl plate bottle group crowd pair bunch pile stack row herd flock piece slice model picture "
    "painting statue map set box bag basket jar vase bouquet cluster line pot tray can carton loaf bundle collection "
    "team sculpture drawing sign sheet body school swarm patch field wall flight tower strip pack heap string"
)
QUANTITIES = _words("lot lots variety number plenty couple dozens hundreds")

# Words that end a noun phrase.
PREPOSITIONS = _words(
    "in on at by with from to into onto of off over under above below beneath beside besides between behind near "
    "across along around against through during before after inside outside toward towards upon within without next "
    "atop among amid beyond past up down out about for as like per via underneath alongside opposite despite"
)
PRONOUNS = _words(
    "i you he she it we they him them me us who whom whose which what that there here himself herself itself "
    "themselves where when why how one's someone something"
)
CONJUNCTIONS = _words("and or but while as if than so because although though then also plus nor yet")
AUXILIARIES = _words(
    "is are was were be been being am has have had having do does did doing can could will would shall should may "
    "might must isn't aren't wasn't weren't don't doesn't can't"
)
ADVERBS = _words(
    "very quite too just only together away ahead apart outdoors indoors upside not still now almost nearly mostly "
    "partly slightly completely fully half-way forward backward backwards forwards aside outward inward back far "
    "slowly quickly happily brightly closely directly side-by-side again else even ever alone"
)
STOPS = PREPOSITIONS | PRONOUNS | CONJUNCTIONS | AUXILIARIES | ADVERBS | NEGATIONS

_VERB_STEMS = _words(
    "appear arrange attach board bloom blow bounce build burn buy carry catch chase chat check climb contain cover "
    "cross dance dig dive drink drive eat enjoy enter face feature feed fill fix float flow fly follow gather gaze "
    "get give glow go grab graze grin grow hang help hide hit hold hug include jump keep kick kiss kneel laugh launch "
    "lay lead lean leap leave lie lift listen live look make meet move nap open overlook pass peek peer perch pet "
    "play point pose pour prepare protrude pull push put race reach read relax rest ride rise roll row run sail say "
    "see sell serve set shine show sing sit skate ski sleep slice smile sniff splash spread stack stand stare stop "
    "stretch surf surround swim swing take talk taste tend throw touch travel try turn use visit wait walk wash watch "
    "wave wear wind wrap write work yawn lick scatter glide hover tower balance emerge decorate display depict crouch "
    "share scratch celebrate cook toss curl drift drip dry fall fight fold"
)
_VERB_IRREGULAR = _words(
    "ate bought brought came caught chose drank drove fed felt flew found gave grew held hung kept laid led left lain "
    "lay made met paid ran rode rose said sang sat saw seen shone sold stood swam threw thrown took taken told went "
    "wore worn wound written wrote built lit filled parked seated dressed covered made topped lying sitting set using "
    "overlooking leads seems looks comes come coming"
)


def _inflected(stem: str) -> tuple[str, ...]:
    base = stem[:-1] if stem.endswith("e") else stem
    doubled = stem + stem[-1]
    ending = "es" if stem.endswith(("s", "x", "ch", "sh", "o")) else "s"
    third = stem[:-1] + "ies" if stem.endswith("y") and stem[-2] not in "aeou" else stem + ending
    return (stem, third, base + "ing", base + "ed", doubled + "ing", doubled + "ed")


VERBS = (frozenset(form for stem in sorted(_VERB_STEMS) for form in _inflected(stem)) | _VERB_IRREGULAR) - {"leaves"}

ADJECTIVES = _words(
    "clear shaggy tall short long wide narrow thin thick fat round flat old young new ancient elderly middle-aged "
    "modern wooden metal metallic plastic stone brick concrete leather paper glassy empty full open closed busy "
    "crowded quiet beautiful pretty cute lovely happy sad angry smiling fluffy furry hairy bald bearded shiny glossy "
    "wet dry dirty clean fresh hot cold warm cool snowy sunny rainy cloudy foggy stormy rocky sandy grassy lush leafy "
    "dense sparse heavy soft hard rough smooth sharp curly straight curved tropical wild domestic american british "
    "french german italian chinese japanese indian african european asian professional traditional vintage antique "
    "rusty broken stern serious male female blonde blond famous favorite simple complex different same single double "
    "space whole entire main electric digital public private national international high low great good nice fine "
    "bare grand own distant nearby overcast starry square-shaped rectangular circular triangular oval-shaped navy "
    "first second third fourth fifth last next former rustic ornate delicious sweet juicy ripe golden steep shallow "
    "calm muddy dusty naval"
)

# Nouns that may stand without an article, and that keep a following word from being read as a verb.
COMMON_NOUNS = _words(
    "car truck bus van taxi train tram bicycle bike motorcycle scooter boat ship plane airplane aircraft jet "
    "helicopter rocket shuttle wheel tire road street sidewalk bridge railway track station airport harbor pier beach "
    "sea ocean lake river pond waterfall water wave sand rock stone mountain hill valley desert field garden park "
    "yard farm tree bush flower rose tulip daisy sunflower leaf branch trunk log plant cactus palm bench chair sofa "
    "couch table desk bed pillow blanket towel curtain carpet rug lamp light candle clock watch window door wall "
    "floor ceiling roof stairs staircase ladder fence gate post pole sign lamp-post hydrant umbrella tent kite "
    "balloon ball bat racket frisbee surfboard skateboard snowboard skis helmet hat cap shirt t-shirt jacket coat "
    "sweater hoodie suit dress skirt jeans pants trousers shorts shoes shoe boots boot sneakers sandals socks gloves "
    "scarf tie belt bag backpack purse suitcase luggage glasses sunglasses goggles necklace ring bracelet earrings "
    "crown uniform vest apron costume cup mug glass bottle bowl plate dish saucer spoon fork knife tray pan pot "
    "kettle stove oven refrigerator microwave sink toilet bathtub shower mirror coffee espresso tea milk juice wine "
    "beer bread cake cookie pie cheese egg meat rice soup fruit apple orange banana lemon strawberry grape pear peach "
    "watermelon carrot tomato potato broccoli onion pepper pumpkin corn donut sandwich pizza hamburger laptop "
    "computer keyboard mouse monitor phone camera tripod microphone speaker guitar piano violin drum trumpet toy doll "
    "teddy block box basket crate bucket barrel house building church tower castle temple skyscraper barn cabin shed "
    "statue fountain monument sculpture sun moon cloud clouds star smoke fire flame snow ice rain steam shadow "
    "reflection flag banner poster painting book newspaper paper pen pencil cube pyramid sphere cone cylinder arrow "
    "heart cross line shape ring background backdrop wall espresso eyeglasses medal badge ribbon patch pad launchpad "
    "clothing clothes ceiling railing wing king string building painting wedding evening morning bed shed seed weed "
    "sled thread swing crosswalk playground court stadium stage audience team couple family group hand-rail rope net "
    "tank engine tractor trailer cart wagon handle button screen television remote machine tool hammer saw drill bolt "
    "gear pipe wire cable tube case bouquet vase jar can carton bucket mat board paddle oar sail mast anchor hut "
    "igloo cave cliff island shore coast bay home horizon path trail lane driveway alley square market shop store "
    "restaurant cafe bar kitchen room office"
)
NOUNS = (
    COMMON_NOUNS | PEOPLE | FACES | GREENERY | PLANTS | SKIES | BODY_PARTS | ANIMALS | IMAGINARY | MANY_COLORED_THINGS
    | OF_HEADS | frozenset(SHAPES)
)  # fmt: skip

IRREGULAR_PLURALS = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "geese": "goose", "ladies": "lady", "gentlemen": "gentleman", "leaves": "leaf", "knives": "knife",
    "wolves": "wolf", "calves": "calf", "loaves": "loaf", "shelves": "shelf", "policemen": "policeman",
    "skies": "sky", "hooves": "hoof", "rhombi": "rhombus", "wives": "wife", "scarves": "scarf", "sheep": "sheep",
    "discs": "disc", "axes": "axis", "glasses": "glasses", "bushes": "bush", "faces": "face", "eyes": "eye",
    "noses": "nose", "houses": "house", "horses": "horse", "shoes": "shoe", "vases": "vase", "purses": "purse",
    "roses": "rose", "canoes": "canoe", "ties": "tie", "pies": "pie", "cookies": "cookie", "movies": "movie",
    "buses": "bus", "grass": "grass", "dress": "dress", "moustaches": "moustache", "headaches": "headache",
}  # fmt: skip
ALWAYS_PLURAL = _words("pants jeans trousers shorts glasses sunglasses goggles stairs clothes skis scissors eyeglasses")

# Function words that show a caption to be in another language.
FOREIGN = _words(
    "un une le la les des du et avec sur dans der die das den dem ein eine einen einem einer und mit auf ist im el "
    "los las una con por para del y il lo gli di che della nel de het een op van met os um uma em com na och ett på "
    "av som med og til ve bir bu ile w z na jest i"
)


def singular(word: str) -> str:
    """The singular of an English noun in lower case; the word itself when it is singular or not a noun."""
    if word in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[word]
    if word in ALWAYS_PLURAL or len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zzes", "oes")):
        return word[:-2]
    return word[:-1]


def is_plural(word: str) -> bool:
    """Whether an English noun is plural."""
    return word not in ALWAYS_PLURAL and word not in ("sheep", "grass", "dress") and singular(word) != word


def is_known_noun(word: str) -> bool:
    """Whether the word, or its singular, is in the noun lists."""
    return word in NOUNS or singular(word) in NOUNS


def is_known(word: str) -> bool:
    """Whether the word is in any of the English lists."""
    return (
        word in STOPS or word in ARTICLES or word in NUMBERS or word in VERBS or word in ADJECTIVES or word in CHROMATIC
        or word in ACHROMATIC or word in SIZES or word in POSITIONS or word in TONES or word in VAGUE_COUNTS
        or word in NOT_OBJECTS or word in OTHER_COLORS or word in MANY_COLORED or is_known_noun(word)
    )  # fmt: skip
