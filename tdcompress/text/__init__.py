"""Text without torch: vocabulary, search for a translation, its measures, and the driver of exported files."""
