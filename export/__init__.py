"""Export: packs a trained run into a kit, and proves it with the runtime's own code before it stands."""
