"""Texts of tokens with a known duty. GGUF files often do not say which token does what; these are llama.cpp's lists."""

from __future__ import annotations

END_OF_TURN = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",  # Granite
    "<EOT>",
    "_<EOT>",
    "[EOT]",  # Kimi K2
    "<｜end▁of▁sentence｜>",  # DeepSeek
    "<end_of_utterance>",  # SmolDocling
)
END_OF_MESSAGE = ("<|eom_id|>",)
END_OF_GENERATION = (
    *END_OF_TURN,
    *END_OF_MESSAGE,
    "<|return|>",  # gpt-oss
    "<|call|>",
    "<|flush|>",  # Solar
    "<|calls|>",
    "</s>",
    "[EOS]",
    "<eos>",
    "<turn|>",  # Gemma 4
    "<|tool_response>",
    "[e~[",  # MiniMax
)
ALWAYS_VISIBLE = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")  # gpt-oss writes its channels with these

# Metadata key -> texts.
FILL_IN_MIDDLE = (
    (
        "fim_pre_token_id",
        (
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ),
    ),
    (
        "fim_suf_token_id",
        (
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ),
    ),
    (
        "fim_mid_token_id",
        (
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ),
    ),
    ("fim_pad_token_id", ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]")),
    ("fim_rep_token_id", ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>")),
    ("fim_sep_token_id", ("<|file_sep|>",)),
)
FILL_IN_MIDDLE_ENDS = ("fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id")
