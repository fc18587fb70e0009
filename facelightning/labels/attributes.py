"""The 40 attributes, their nine groups, and the regions where they are visible."""

ATTRIBUTES = tuple(
    """
    5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair
    Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male
    Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks
    Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace
    Wearing_Necktie Young
    """.split()
)
"""The 40 attributes in the order of CelebA's ``list_attr_celeba.txt`` (Liu et al., ICCV 2015)."""

ATTRIBUTE_GROUPS = {
    group: tuple(names.split())
    for group, names in {
        "hair": "Bald Bangs Black_Hair Blond_Hair Brown_Hair Gray_Hair Receding_Hairline Straight_Hair Wavy_Hair "
        "Wearing_Hat",
        "eye": "Arched_Eyebrows Bags_Under_Eyes Bushy_Eyebrows Eyeglasses Narrow_Eyes",
        "ear": "Wearing_Earrings",
        "nose": "Big_Nose Pointy_Nose",
        "mouth": "Big_Lips Mouth_Slightly_Open Smiling Wearing_Lipstick",
        "beard": "5_o_Clock_Shadow Double_Chin Goatee Mustache No_Beard Sideburns",
        "cheek": "High_Cheekbones Rosy_Cheeks",
        "neck": "Wearing_Necklace Wearing_Necktie",
        "global": "Attractive Blurry Chubby Heavy_Makeup Male Oval_Face Pale_Skin Young",
    }.items()
}
"""Nine groups that partition the attributes (Wang, Su, Zhao, Table I, in CelebA's spelling)."""

IDENTITY_ATTRIBUTES = tuple(
    "Arched_Eyebrows Big_Lips Big_Nose Bushy_Eyebrows Chubby Double_Chin High_Cheekbones Male Narrow_Eyes Oval_Face "
    "Pointy_Nose Young".split()
)
"""The attributes that are related to identity: gender, age, and the shapes of the face and its components.

Liu et al. (ICCV 2015, §5.1) name these kinds, and race, which no attribute is; which of the 40 they are is our reading.
Expressions, colours, textures, hair and what is worn are not among them.
"""

CONTRADICTIONS = tuple(
    (name, other)
    for name, others in {
        "Bald": "Bangs Straight_Hair Wavy_Hair",
        "Bangs": "Receding_Hairline",
        "Black_Hair": "Blond_Hair Gray_Hair",
        "No_Beard": "Goatee Mustache",
        "Straight_Hair": "Wavy_Hair",
    }.items()
    for other in others.split()
)
"""Pairs of attributes of which a face has at most one, by what the words mean; a few of CelebA's labels say both."""

_VISIBLE_IN = {
    (): "Attractive Blurry Chubby Male Young",
    ("hair",): "Bald Bangs Black_Hair Blond_Hair Brown_Hair Gray_Hair Receding_Hairline Straight_Hair Wavy_Hair",
    ("hair", "face_skin"): "Sideburns",
    ("hair", "background"): "Wearing_Hat",
    ("eyebrows",): "Arched_Eyebrows Bushy_Eyebrows",
    ("eyes",): "Narrow_Eyes",
    ("eyes", "face_skin"): "Bags_Under_Eyes Eyeglasses",
    ("nose",): "Big_Nose Pointy_Nose",
    ("mouth",): "Big_Lips Mouth_Slightly_Open Smiling Wearing_Lipstick",
    ("mouth", "face_skin"): "Mustache",
    ("face_skin", "mouth"): "Goatee No_Beard",
    ("face_skin", "eyes", "mouth"): "Heavy_Makeup",
    ("face_skin", "background"): "Double_Chin",
    ("face_skin",): "5_o_Clock_Shadow High_Cheekbones Oval_Face Pale_Skin Rosy_Cheeks",
    ("background",): "Wearing_Earrings Wearing_Necklace Wearing_Necktie",
}
_REGIONS_OF = {name: regions for regions, names in _VISIBLE_IN.items() for name in names.split()}

ATTRIBUTE_REGIONS: dict[str, tuple[str, ...]] = {name: _REGIONS_OF[name] for name in ATTRIBUTES}
"""The region(s) of :data:`HELEN7` where an attribute is visible; empty for an attribute of the whole face.

Ears and neck are background in Helen, hence earrings and neckties are, too.
"""
