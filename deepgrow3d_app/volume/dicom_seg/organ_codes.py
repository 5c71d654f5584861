"""SNOMED CT codes of structures, by the names that people and models give them."""

from __future__ import annotations

import re
from dataclasses import dataclass

SCHEME = "SCT"


@dataclass(frozen=True, slots=True)
class Code:
    """A concept of SNOMED CT."""

    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class StructureCode:
    """What a structure is.

    Attributes:
        category: what kind of thing it is.
        type: the thing itself.
        side: left or right, where the type does not say.
    """

    category: Code
    type: Code
    side: Code | None = None


ANATOMY = Code("91723000", "Anatomical Structure")
TISSUE = Code("85756007", "Tissue")
SIDES = {"left": Code("7771000", "Left"), "right": Code("24028007", "Right")}

# The 13 organs of BTCV, then what else annotators of trunk, brain and hip often draw.
TYPES = {
    "spleen": Code("78961009", "Spleen"),
    "kidney": Code("64033007", "Kidney"),
    "gallbladder": Code("28231008", "Gallbladder"),
    "esophagus": Code("32849002", "Esophagus"),
    "liver": Code("10200004", "Liver"),
    "stomach": Code("69695003", "Stomach"),
    "aorta": Code("15825003", "Aorta"),
    "inferior vena cava": Code("64131007", "Inferior vena cava"),
    "portal vein": Code("32764006", "Portal vein"),
    "pancreas": Code("15776009", "Pancreas"),
    "adrenal gland": Code("23451007", "Adrenal gland"),
    "splenic vein": Code("35819009", "Splenic vein"),
    "superior vena cava": Code("48345005", "Superior vena cava"),
    "pulmonary artery": Code("81040000", "Pulmonary artery"),
    "duodenum": Code("38848004", "Duodenum"),
    "colon": Code("71854001", "Colon"),
    "small intestine": Code("30315005", "Small intestine"),
    "rectum": Code("34402009", "Rectum"),
    "ureter": Code("87953007", "Ureter"),
    "prostate": Code("41216001", "Prostate"),
    "heart": Code("80891009", "Heart"),
    "lung": Code("39607008", "Lung"),
    "trachea": Code("44567001", "Trachea"),
    "brain": Code("12738006", "Brain"),
    "hippocampus": Code("5366008", "Hippocampus"),
    "spinal cord": Code("2748008", "Spinal cord"),
    "bone": Code("272673000", "Bone"),
    "sacrum": Code("54735007", "Sacrum"),
    "femur": Code("71341001", "Femur"),
    "humerus": Code("85050009", "Humerus"),
    "scapula": Code("79601000", "Scapula"),
    "clavicle": Code("51299004", "Clavicle"),
    "sternum": Code("56873002", "Sternum"),
}
SPELLINGS = {
    "oesophagus": "esophagus",
    "gall bladder": "gallbladder",
    "ivc": "inferior vena cava",
    "postcava": "inferior vena cava",
    "svc": "superior vena cava",
    "suprarenal gland": "adrenal gland",
    "adrenal": "adrenal gland",
    "small bowel": "small intestine",
    # One structure of two veins in BTCV, known by the larger one.
    "portal vein and splenic vein": "portal vein",
    "portal and splenic veins": "portal vein",
    "veins": "portal vein",
}
GENERAL = StructureCode(TISSUE, TISSUE)
"""What is not known here: its name says what it is."""


def structure_code(name: str) -> StructureCode:
    """The code of the structure ``name``, in any usual spelling (``left kidney``, ``kidney_left``, ``Kidney (L)``)."""
    words = re.findall(r"[a-z]+", name.lower())
    sides = [side for side in SIDES if side in words or side[0] in words]
    if len(sides) > 1:
        return GENERAL
    side = sides[0] if sides else None
    plain = " ".join(word for word in words if side is None or word not in (side, side[0]))
    kind = TYPES.get(SPELLINGS.get(plain, plain))
    return GENERAL if kind is None else StructureCode(ANATOMY, kind, SIDES[side] if side else None)
