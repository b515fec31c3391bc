//! What the model found, each with its seed and its story.
