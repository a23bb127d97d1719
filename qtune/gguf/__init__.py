"""GGUF, the file format of llama.cpp and Ollama: models and LoRAs written, and read back."""
