"""Folders with a config.json for the planner: edited, nested, with modules of their own beside them."""

from typing import Any

from hypothesis import strategies as st

from tests.fuzz.base import Draw, Room, Target
from tests.fuzz.odd import ODD_WORDS, SPOILED_JSON, dumped, edited_json, json_edits, spoiled_json

_GPT2 = {
    "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 8, "n_layer": 2, "n_head": 2,
    "vocab_size": 40, "n_positions": 16, "torch_dtype": "float32",
    "activation_function": "gelu_new", "resid_pdrop": 0.1, "n_inner": None,
}  # fmt: skip
_LLAMA = {
    "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 16, "vocab_size": 40, "max_position_embeddings": 16, "rope_scaling": None,
    "hidden_act": "silu", "rope_theta": 10000.0, "tie_word_embeddings": False, "rms_norm_eps": 1e-6,
}  # fmt: skip
_MIXTRAL = _LLAMA | {"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 1}
_OWN = {
    "model_type": "payload",
    "auto_map": {"AutoConfig": "payload.Config", "AutoModelForCausalLM": "payload.Model"},
    "hidden_size": 8,
}
_NESTED = {
    "model_type": "gemma3",
    "text_config": _LLAMA | {"model_type": "gemma3_text"},
    "vision_config": {"hidden_size": 8},
}
_T5 = {"model_type": "t5", "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 40}
_SOUND = (_GPT2, _LLAMA, _MIXTRAL, _OWN, _NESTED, _T5)


class Plans(Target):
    """{"model": number, "edits" or "whole", "settings"}."""

    name, share = "plans", 2

    def draw(self, draw: Draw) -> Any:
        number = draw(st.integers(0, len(_SOUND) - 1))
        value: dict[str, Any] = {"model": number, "settings": []}
        if draw(st.integers(0, 4)) == 4:
            key = draw(st.sampled_from(("tokens", "context", "devices", "precision", "vectors", "granularity", "opus")))
            value["settings"] = [f"{key}={draw(ODD_WORDS)}"]
        if draw(st.integers(0, 6)) == 6:
            return {**value, "whole": draw(SPOILED_JSON)}
        return {**value, "edits": draw(st.lists(json_edits(_SOUND[number]), max_size=2))}

    def lay(self, value: Any, room: Room) -> None:
        folder = room.given / "model"
        folder.mkdir()
        sound = _SOUND[value["model"]]
        whole = spoiled_json(value["whole"]) if "whole" in value else dumped(edited_json(sound, value["edits"]))
        (folder / "config.json").write_bytes(whole)
        (folder / "payload.py").write_text(room.code)
        (folder / "pytorch_model.bin").write_bytes(room.pickled)

    def run(self, value: Any, room: Room) -> Any:
        return room.odfa("plan", str(room.given / "model"), "tokens=16", "context=8", *value["settings"], "--json")
