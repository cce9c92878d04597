"""Running models with onnxruntime: sessions, providers, exact products of bytes."""
