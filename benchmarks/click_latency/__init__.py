"""What a click takes, seen by a viewer: this server beside MONAI Label's own deepgrow_3d, both over HTTP."""
