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

ATTRIBUTE_REGIONS: dict[str, tuple[str, ...]] = {
    "5_o_Clock_Shadow": ("face_skin",),
    "Arched_Eyebrows": ("eyebrows",),
    "Attractive": (),
    "Bags_Under_Eyes": ("eyes", "face_skin"),
    "Bald": ("hair",),
    "Bangs": ("hair",),
    "Big_Lips": ("mouth",),
    "Big_Nose": ("nose",),
    "Black_Hair": ("hair",),
    "Blond_Hair": ("hair",),
    "Blurry": (),
    "Brown_Hair": ("hair",),
    "Bushy_Eyebrows": ("eyebrows",),
    "Chubby": (),
    "Double_Chin": ("face_skin", "background"),
    "Eyeglasses": ("eyes", "face_skin"),
    "Goatee": ("face_skin", "mouth"),
    "Gray_Hair": ("hair",),
    "Heavy_Makeup": ("face_skin", "eyes", "mouth"),
    "High_Cheekbones": ("face_skin",),
    "Male": (),
    "Mouth_Slightly_Open": ("mouth",),
    "Mustache": ("mouth", "face_skin"),
    "Narrow_Eyes": ("eyes",),
    "No_Beard": ("face_skin", "mouth"),
    "Oval_Face": ("face_skin",),
    "Pale_Skin": ("face_skin",),
    "Pointy_Nose": ("nose",),
    "Receding_Hairline": ("hair",),
    "Rosy_Cheeks": ("face_skin",),
    "Sideburns": ("hair", "face_skin"),
    "Smiling": ("mouth",),
    "Straight_Hair": ("hair",),
    "Wavy_Hair": ("hair",),
    "Wearing_Earrings": ("background",),
    "Wearing_Hat": ("hair", "background"),
    "Wearing_Lipstick": ("mouth",),
    "Wearing_Necklace": ("background",),
    "Wearing_Necktie": ("background",),
    "Young": (),
}
"""The region(s) of :data:`HELEN7` where an attribute is visible; empty for an attribute of the whole face.

Ears and neck are background in Helen, hence earrings and neckties are, too.
"""
