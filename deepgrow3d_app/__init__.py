"""DeepGrow 3D: a few clicks in a CT or MR become a mask; saved masks become a better network.

serve: volume file > Volume > clicks > ROI around them > guidance maps > network > mask restored > REST
train: labelled cases > patches > simulated clicks > guidance maps > network > loss > checkpoint > served model

Each word of the two lines is a folder or a file: ``volume``, ``click``, ``model`` serve the first,
``training`` and ``evaluation`` the second, ``serving`` answers over HTTP and ``client`` asks.
"""

__version__ = "0.1.0"

PRODUCT = "DeepGrow 3D"
"""What users know it as: in viewers, in files, in the names of what it saves."""
