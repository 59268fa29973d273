"""Which family a model's name is of: names as routers, clouds, hubs and local servers
write them.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.boxes._model_names import squeezed
from dataflow_grounding.boxes.formats import find_box_format, format_of_model, known_formats

KNOWN = {
    "doctags": "granite-docling-258m ibm-granite/granite-docling-258M-mlx smoldocling-256m-preview",
    "gemini": """
        gemini-2.0-flash gemini-2.0-flash-001 gemini-2.0-flash-exp gemini-2.0-flash-lite-preview-02-05
        gemini-2.5-pro gemini-2.0-flash-thinking-exp-01-21 gemini-2.0-pro-exp-02-05 gemini-2.5-pro-preview-05-06
        gemini-2.5-pro-exp-03-25 gemini-2.5-flash gemini-2.5-flash-lite-preview-06-17
        gemini-2.5-flash-preview-09-2025 gemini-3-pro-preview gemini-3-flash-preview gemini-3.1-pro-preview
        gemini-3.1-flash-lite-preview gemini-3.5-flash gemini-3.6-flash gemini-3.5-flash-lite gemini-3.8-flash
        gemini-flash-latest gemini-flash-lite-latest gemini-pro-latest gemini-robotics-er-1.5-preview
        models/gemini-2.5-pro google/gemini-2.5-flash-lite google/gemini-3-pro-preview
        openrouter/google/gemini-2.0-flash-exp:free publishers/google/models/gemini-2.5-flash
        databricks-gemini-2-5-pro vertex_ai/gemini-2.5-pro gemini/gemini-3-flash-preview
        google/gemini-2.5-pro@default databricks-gemini-3-1-pro
        projects/my-project/locations/us-central1/publishers/google/models/gemini-2.0-flash-001
    """,
    "gemma-4": """
        google/gemma-4-31b-it google/gemma-4-26b-a4b-it google/gemma-4-E2B-it google/gemma-4-E4B gemma4:31b
        gemma4:e4b-it-q4_K_M gemma4 gemma4:31b-cloud google/gemma-4-31b-it:free unsloth/gemma-4-E4B-it-GGUF
        lmstudio-community/gemma-4-12B-it-GGUF mlx-community/gemma-4-26b-a4b-it-4bit google_gemma-4-31b-it-Q6_K.gguf
        gemma-4-12b-it-qat-q4_0 gemma-4-31b-it-UD-Q4_K_XL.gguf gemma-4-12B-it-MLX-8bit
        RedHatAI/gemma-4-31B-it-FP8-dynamic
    """,
    "qwen-vl": "Qwen/Qwen-VL-Chat Qwen/Qwen-VL-Chat-Int4 Qwen-VL-7B",
    "qwen2-vl": """
        Qwen/Qwen2-VL-2B-Instruct Qwen/Qwen2-VL-7B-Instruct-AWQ Qwen/Qwen2-VL-72B-Instruct-GPTQ-Int8
        OS-Copilot/OS-Atlas-Base-7B mlx-community/Qwen2-VL-7B-Instruct-8bit qwen/qwen-2-vl-7b-instruct
        bartowski/Qwen2-VL-7B-Instruct-GGUF accounts/fireworks/models/qwen2-vl-72b-instruct
    """,
    "qwen2.5-vl": """
        Intel/Qwen2.5-VL-7B-Instruct-int4-AutoRound bartowski_Qwen_Qwen2.5-VL-7B-Instruct-GGUF
        ggml-org_Qwen2.5-VL-7B-Instruct-GGUF Qwen/Qwen2.5-VL-3B-Instruct Qwen/Qwen2.5-VL-7B-Instruct
        Qwen/Qwen2.5-VL-32B-Instruct Qwen/Qwen2.5-VL-72B-Instruct-AWQ qwen2.5vl qwen2.5vl:7b qwen2.5vl:72b-q4_K_M
        qwen2.5-vl-7b-instruct qwen/qwen2.5-vl-72b-instruct:free qwen/qwen-2.5-vl-7b-instruct
        accounts/fireworks/models/qwen2p5-vl-32b-instruct ggml-org/Qwen2.5-VL-7B-Instruct-GGUF
        bartowski/Qwen_Qwen2.5-VL-7B-Instruct-GGUF hf.co/unsloth/Qwen2.5-VL-7B-Instruct-GGUF:Q4_K_M
        unsloth/Qwen2.5-VL-7B-Instruct-unsloth-bnb-4bit mlx-community/Qwen2.5-VL-7B-Instruct-4bit
        Pro/Qwen/Qwen2.5-VL-7B-Instruct RedHatAI/Qwen2.5-VL-7B-Instruct-quantized.w4a16
        nvidia/Qwen2.5-VL-7B-Instruct-NVFP4 qwen2_5-vl-7b-instruct-fp8 RedHatAI/Qwen2.5-VL-72B-Instruct-FP8-dynamic
        lmstudio-community/Qwen2.5-VL-7B-Instruct-GGUF qwen/qwen2.5-vl-7b /models/Qwen2.5-VL-7B-Instruct-Q4_K_M.gguf
        C:\\models\\Qwen2.5-VL-3B-Instruct-UD-IQ2_M.gguf qwen-qwen2.5-vl-7b-instruct
        novita/qwen/qwen2.5-vl-72b-instruct together_ai/Qwen/Qwen2.5-VL-72B-Instruct
        Qwen2.5-VL-7B-Instruct-Q8_0-00001-of-00002.gguf Qwen2.5-VL-32B-Instruct-exl2-4.0bpw
    """,
    "qwen3-vl": """
        publishers/qwen/models/qwen3-vl-235b-a22b-instruct-maas lmstudio-community_Qwen3-VL-8B-Instruct-GGUF
        mradermacher_Qwen3-VL-8B-Instruct-GGUF RedHatAI/Qwen3-VL-235B-A22B-Instruct-FP8-block
        qwen/qwen3-vl-8b-instruct:floor qwen/qwen3-vl-8b-instruct:exacto Qwen/Qwen3-VL-2B-Instruct
        Qwen/Qwen3-VL-8B-Instruct Qwen/Qwen3-VL-8B-Thinking Qwen/Qwen3-VL-30B-A3B-Instruct-FP8
        Qwen/Qwen3-VL-235B-A22B-Thinking qwen3-vl qwen3-vl:8b qwen3-vl:235b-cloud qwen3-vl:30b-a3b-instruct-q4_K_M
        qwen/qwen3-vl-8b qwen/qwen3-vl-8b@q4_k_m qwen/qwen3-vl-8b-instruct qwen/qwen3-vl-235b-a22b-instruct:nitro
        qwen3-vl-plus qwen3-vl-plus-2025-09-23 qwen3-vl-flash qwen3-vl-flash-2025-10-15 qwen3-vl-235b-a22b-instruct
        qwen.qwen3-vl-235b-a22b accounts/fireworks/models/qwen3-vl-235b-a22b-thinking
        unsloth/Qwen3-VL-8B-Instruct-GGUF
        accounts/fireworks/models/qwen3-vl-8b-instruct#accounts/me/deployments/a1b2
        unsloth-Qwen3-VL-8B-Instruct-GGUF unsloth_Qwen3-VL-8B-Instruct-GGUF unsloth-Qwen3-VL-30B-A3B-Instruct
        Qwen3-VL-8B-Instruct-UD-Q4_K_XL.gguf Qwen_Qwen3-VL-8B-Instruct-Q4_K_M.gguf Qwen3VL-8B-Instruct-Q4_K_M.gguf
        hf.co/unsloth/Qwen3-VL-8B-Instruct-GGUF:Q4_K_M lmstudio-community/Qwen3-VL-4B-Instruct-MLX-8bit
        mlx-community/Qwen3-VL-8B-Instruct-4bit-DWQ cpatonn/Qwen3-VL-8B-Instruct-AWQ-4bit
        QuantTrio/Qwen3-VL-30B-A3B-Instruct-AWQ deepinfra/Qwen/Qwen3-VL-235B-A22B-Instruct
        siliconflow/Qwen/Qwen3-VL-32B-Instruct groq/qwen/qwen3-vl-32b-instruct
        mlx-community_Qwen3-VL-4B-Instruct-bf16 Qwen3-VL-8B-Instruct.i1-Q4_K_M.gguf
        nvidia/Qwen3-VL-235B-A22B-Instruct-NVFP4 Qwen3-VL-8B-Instruct-MXFP4_MOE.gguf
    """,
    "qwen3.5": """
        qwen/qwen3.5-27b Qwen/Qwen3.5-35B-A3B Qwen/Qwen3.5-397B-A17B-FP8 qwen3.5-plus qwen3.5-flash-2026-02-23
        Qwen/Qwen3.5-VL-9B qwen3.5-vl:9b qwen3.6-flash-us qwen3.5:9b Qwen/Qwen3.5-0.8B qwen/qwen3.6-27b qwen3.6-plus qwen3.6:35b-a3b-q8_0 qwen/qwen3.7-plus
        qwen/qwen3.7-flash qwen/qwen3.8-27b qwen/qwen3.8-max qwen3.8-flash Qwen/Qwen3.8-Flash-Next
        accounts/fireworks/models/qwen3p5-397b-a17b unsloth/Qwen3.5-35B-A3B-GGUF unsloth/Qwen3.6-27B-UD-MLX-4bit
        mlx-community/Qwen3.5-27B-4bit qwen.qwen3.5-27b
    """,
    "glm-v": """
        zai-org/GLM-4.1V-9B-Thinking THUDM/GLM-4.1V-9B-Thinking z-ai/glm-4.5v zai-org/GLM-4.5V-FP8 glm-4.5v
        z-ai/glm-4.6v zai-org/GLM-4.6V-Flash glm-4.6v-flashx z-ai/glm-5v-turbo glm-5v-turbo
        accounts/fireworks/models/glm-4p5v unsloth/GLM-4.6V-Flash-GGUF zai-org_GLM-4.6V-Flash-Q4_K_M.gguf
        mlx-community/GLM-4.5V-4bit novita/zai-org/glm-4.5v Pro/THUDM/GLM-4.1V-9B-Thinking zai.glm-4.6v
    """,
    "glm-5": "z-ai/glm-5.3-flash glm-5.3-flash zai-org/GLM-5.3-Flash-FP8 accounts/fireworks/models/glm-5p3-flash",
    "internvl": """
        OpenGVLab/InternVL3-8B-Pretrained OpenGVLab/InternVL-Chat-V1-5 OpenGVLab/InternVL-Chat-V1-2-Plus
        OpenGVLab/InternVL2-8B OpenGVLab/InternVL2-Llama3-76B-AWQ OpenGVLab/InternVL2_5-78B
        OpenGVLab/InternVL2_5-8B-MPO OpenGVLab/InternVL3-78B-Instruct OpenGVLab/InternVL3-8B-hf
        OpenGVLab/InternVL3_5-38B OpenGVLab/InternVL3_5-30B-A3B-HF OpenGVLab/InternVL3_5-GPT-OSS-20B-A4B-Preview
        OpenGVLab/Mini-InternVL-Chat-4B-V1-5 nvidia/InternVL3_5-38B ggml-org/InternVL3-8B-Instruct-GGUF
        internvl3.5:8b opengvlab/internvl3-78b:free OpenGVLab_InternVL3_5-8B-Q4_K_M.gguf
        OpenGVLab/InternVL3_5-8B-Flash
    """,
    "deepseek-vl2": """
        deepseek_deepseek-vl2-tiny
        deepseek-ai/deepseek-vl2 deepseek-ai/deepseek-vl2-tiny deepseek-ai/deepseek-vl2-small
        Pro/deepseek-ai/deepseek-vl2
    """,
    "deepseek-ocr": "deepseek-ai/DeepSeek-OCR deepseek-ocr:3b mlx-community/DeepSeek-OCR-8bit",
    "unlimited-ocr": "Unlimited-OCR mlx-community/Unlimited-OCR-4bit",
    "hunyuan-ocr": "tencent/HunyuanOCR",
    "paligemma": """
        google/paligemma-3b-pt-224 google/paligemma-3b-mix-448 google/paligemma2-3b-pt-896
        google/paligemma2-10b-mix-448 google/paligemma2-28b-mix-448 mlx-community/paligemma-3b-mix-448-8bit
    """,
    "florence-2": """
        microsoft/Florence-2-base microsoft/Florence-2-large-ft florence-community/Florence-2-large
        microsoft_Florence-2-base-ft
    """,
    "kosmos-2": "microsoft/kosmos-2-patch14-224 nvidia/microsoft/kosmos-2",
    "moondream": """
        moondream vikhyatk/moondream2 moondream/moondream3-preview moondream:1.8b-v2-q4_K_M
        moondream-2b-2025-04-14-4bit
    """,
    "kimi-vl": """
        moonshotai_Kimi-VL-A3B-Thinking-2506-Q4_K_M.gguf moonshotai/Kimi-VL-A3B-Instruct
        moonshotai/Kimi-VL-A3B-Thinking-2506 moonshotai/kimi-vl-a3b-thinking:free
    """,
    "claude": """
        anthropic/claude-3.5-sonnet:beta claude-3-opus-20240229 claude-3-haiku-20240307 claude-3-5-sonnet-20241022
        claude-3-5-sonnet-latest claude-3-7-sonnet-20250219 claude-3-5-sonnet-v2@20241022
        anthropic/claude-3.7-sonnet:thinking anthropic/claude-3.5-haiku claude-opus-4-20250514 claude-opus-4-0
        claude-opus-4-1-20250805 claude-opus-4-5-20251101 claude-opus-4-6 claude-sonnet-4-20250514 claude-sonnet-4-5
        claude-sonnet-4-6 claude-haiku-4-5-20251001 claude-sonnet-4-5@20250929 anthropic/claude-opus-4.6-fast
        us.anthropic.claude-sonnet-4-20250514-v1:0 jp.anthropic.claude-sonnet-4-5-20250929-v1:0
        au.anthropic.claude-haiku-4-5-20251001-v1:0 eu.anthropic.claude-3-5-sonnet-20240620-v1:0
        apac.anthropic.claude-3-haiku-20240307-v1:0 anthropic.claude-opus-4-6-v1
        global.anthropic.claude-opus-4-5-20251101-v1:0 anthropic.claude-3-sonnet-20240229-v1:0:200k
        us-gov.anthropic.claude-3-7-sonnet-20250219-v1:0 databricks-claude-sonnet-4 databricks-claude-3-7-sonnet
        databricks-claude-opus-4-1 bedrock/converse/us.anthropic.claude-sonnet-4-6
        anthropic/claude-4.5-sonnet-20250929 claude-4-sonnet poe/Claude-Sonnet-4.5
        arn:aws:bedrock:us-east-1:1234:inference-profile/us.anthropic.claude-opus-4-1-20250805-v1:0
        github_copilot/claude-haiku-4.5 claude-opus-4-6[1m]
    """,
    "claude-high-resolution": """
        claude-opus-4-7 claude-opus-4-8 claude-opus-5 claude-opus-5-5 claude-sonnet-5 claude-sonnet-5-5
        claude-haiku-5-5 claude-fable-5 claude-fable-5-1 claude-mythos-5 anthropic/claude-opus-4.7
        anthropic/claude-opus-4.8 anthropic/claude-sonnet-5.5 us.anthropic.claude-opus-4-8-v1:0
        jp.anthropic.claude-opus-5 au.anthropic.claude-sonnet-5 anthropic.claude-haiku-5-5
        databricks-claude-opus-4-7 databricks-claude-sonnet-5 vertex_ai/claude-opus-5@20260801
        anthropic/claude-opus-5:thinking azure/claude-opus-5-5 claude-fable-5-1[1m]
    """,
    "grok": """
        grok-4.5 grok-4.6 x-ai/grok-4.7 xai/grok-4.6-latest xai.grok-4.5 grok-4.7-reasoning xai.grok-4.6-reasoning
        x-ai/grok-4.7:online
    """,
    "muse": """
        meta/muse-spark-1.1 meta/muse-spark-1.3 meta/muse-glimmer-30b muse-spark meta-muse-glimmer-30b-GGUF
        muse-glimmer-30b-NVFP4
    """,
    "nova": """
        amazon/nova-lite-v1 amazon/nova-pro-v1 amazon.nova-lite-v1:0 amazon.nova-pro-v1:0:300k
        us.amazon.nova-pro-v1:0 eu.amazon.nova-lite-v1:0
        ca.amazon.nova-lite-v1:0
    """,
    "cogvlm": """
        THUDM/cogvlm-grounding-generalist-hf THUDM/cogvlm-chat-hf THUDM/cogagent-chat-hf
        cogvlm-grounding-generalist-v1.1
    """,
    "minicpm-v": """
        openbmb_MiniCPM-V-4_5-Q4_K_M.gguf openbmb/MiniCPM-V-4_5 openbmb/MiniCPM-V-4_5-int4 openbmb/minicpm-v4.5:8b
        openbmb/MiniCPM-o-2_6-gguf
    """,
    "ernie-vl": "baidu/ERNIE-4.5-VL-28B-A3B-Thinking baidu/ernie-4.5-vl-28b-a3b-thinking",
    "isaac": "PerceptronAI/Isaac-0.1 PerceptronAI/Isaac-0.2-2B-Preview",
    "rex-omni": "IDEA-Research/Rex-Omni IDEA-Research/Rex-Omni-AWQ",
    "locate-anything": "nvidia/LocateAnything-3B nvidia_LocateAnything-3B-Q8_0.gguf",
    "seed-vl": """
        ByteDance-Seed/Seed1.5-VL doubao-1-5-thinking-vision-pro-250428 doubao-seed-1-6-250615
        doubao-seed-1-6-flash-250828 doubao-seed-1-6-vision-250815 doubao-seed-1-8-251228
        doubao-seed-2-0-lite-260215 doubao-seed-2-0-pro-260215 bytedance-seed/seed-1.6 bytedance-seed/seed-1.6-flash
        bytedance-seed/seed-2.0-mini volcengine/doubao-seed-1-6-thinking-250715
    """,
    "lfm2.5-vl": "LiquidAI/LFM2.5-VL-450M LiquidAI/LFM2.5-VL-450M-GGUF lfm2.5-vl-450m@q8_0",
    "datature-vi": "datature-vi",
    "molmo": """
        allenai/Molmo-7B-D-0924 allenai/Molmo-7B-O-0924 allenai/Molmo-72B-0924 allenai/MolmoE-1B-0924
        mlx-community/Molmo-7B-D-0924-4bit
    """,
    "molmo2": "allenai/Molmo2-4B allenai/Molmo2-8B allenai/Molmo2-O-7B allenai/molmo-2-8b:free",
    "molmo-point": """
        allenai/MolmoPoint-8B allenai/MolmoPoint-Img-8B allenai/MolmoPoint-GUI-8B mlx-community/MolmoPoint-8B-fp16
        allenai/MolmoPoint-Vid-4B
    """,
    "vlm-fo1": "omlab/VLM-FO1_Qwen2.5-VL-3B-v01 omlab/VLM-FO1-3B-v01",
    "ui-tars": """
        ByteDance-Seed/UI-TARS-1.5-7B bytedance-research/UI-TARS-7B-DPO bytedance/ui-tars-1.5-7b
        doubao-1-5-ui-tars-250428 bartowski/UI-TARS-7B-DPO-GGUF
    """,
    "showui": "showlab/ShowUI-2B",
    "gpt": """
        gpt-4o gpt-4o-mini gpt-4o-2024-08-06 chatgpt-4o-latest gpt-4.1 gpt-4.1-nano-2025-04-14 gpt-5.2 gpt-5.2-pro
        gpt-5.4-mini gpt-5.5 gpt-5.6-sol gpt-6-astra gpt-6-luna gpt-6.1-sol gpt-6.1-terra gpt-6.2-sol
        gpt-6.1 openai/gpt-6.1-sol-2026-10-01 openai-gpt-6-astra-pro openai/gpt-4o:extended azure/gpt-4o
        openai/gpt-5.2-chat openrouter/openai/gpt-4.1-mini databricks-gpt-5-2 openai.gpt-4.1
    """,
    "gpt-5": """
        gpt-5 gpt-5-mini gpt-5-nano-2025-08-07 gpt-5-chat-latest openai/gpt-5.1 gpt-5-pro databricks-gpt-5-1
        gpt-5.1-2025-11-13
    """,
    "qwen2.5-omni": "Qwen/Qwen2.5-Omni-7B Qwen/Qwen2.5-Omni-3B ggml-org/Qwen2.5-Omni-7B-GGUF",
    "qwen3-omni": "Qwen/Qwen3-Omni-30B-A3B-Instruct Qwen/Qwen3-Omni-30B-A3B-Thinking qwen3-omni-flash",
    "cosmos-reason2": "nvidia/Cosmos-Reason2-2B nvidia/cosmos-reason2-8b",
    "lfm2.5-vl-3b": "LiquidAI/LFM2.5-VL-3B",
    "robobrain": "BAAI/RoboBrain2.0-7B BAAI/RoboBrain2.0-32B",
    "deepseek-v4": "deepseek/deepseek-v4-flash-vision-exp",
    "mimo": "xiaomi/mimo-v2.6-pro XiaomiMiMo/MiMo-V2.6-Flash",
    "mimo-vl": "XiaomiMiMo/MiMo-VL-7B-RL XiaomiMiMo/MiMo-VL-7B-SFT-2508 lmstudio-community/MiMo-VL-7B-RL-GGUF",
    "qwen3.6-vl": "qwen3.6-vl:4b qwen3.6-vl-72b-instruct qwen3.6-vl-plus Qwen3.8-VL-27B",
    "qwen3.8-plus": "qwen3.8-plus qwen/qwen3.8-plus qwen3.8-plus-2026-10-01 qwen/qwen3.8-plus:free",
    "grok-fast": """
        grok-4.5-fast x-ai/grok-4.6-fast grok-4.7-fast grok-4.7-fast-reasoning grok-4.7-non-reasoning
        xai.grok-4.7-fast-non-reasoning
    """,
    "kimi-k2": "moonshotai/kimi-k2.6 kimi-k2.6 accounts/fireworks/models/kimi-k2p6",
    "kimi-k3": "moonshotai/kimi-k3 moonshotai/Kimi-K3",
    "mistral-large": "mistralai/mistral-large-4-0 mistral-large-4",
    "inkling": "thinkingmachines/inkling",
    "minimax-m3": "minimax/minimax-m3 MiniMaxAI/MiniMax-M3",
    "medgemma": "google/medgemma-1.5-4b-it",
    "nemotron-nano-vl": "nvidia/Llama-3.1-Nemotron-Nano-VL-8B-V1 nvidia/llama-3.1-nemotron-nano-vl-8b-v1",
}
NOT_KNOWN = {
    "no chat models": """
        Qwen/Qwen3-VL-Embedding-8B Qwen/Qwen3-VL-Reranker-2B Qwen/Qwen3-Embedding-0.6B
        databricks-qwen3-embedding-0-6b qwen3-vl-embedding gemini-embedding-001 gemini-embedding-2-preview
        gemini-2.5-flash-image gemini-2.5-flash-image-preview gemini-3-pro-image-preview
        gemini-2.0-flash-preview-image-generation gemini-2.0-flash-exp-image-generation gemini-2.5-flash-preview-tts
        gemini-2.5-flash-native-audio-preview-09-2025 gemini-2.0-flash-live-001 gemini-live-2.5-flash-preview
        gemini-3.1-flash-live-preview gemini-2.5-computer-use-preview-10-2025 gpt-image-1 gpt-4o-audio-preview
        gpt-4o-mini-tts gpt-4o-transcribe gpt-4o-realtime-preview gpt-4o-search-preview amazon.nova-canvas-v1:0
        amazon.nova-reel-v1:1 amazon.nova-sonic-v1:0 nova-2-general Qwen/Qwen-Image-Edit
        Qwen/Qwen3-Omni-30B-A3B-Captioner vidore/colqwen2.5-v0.2 nvidia/Cosmos-Predict2-2B deepseek-ai/Janus-Pro-7B
        openbmb/MiniCPM-Embedding google/embeddinggemma-300m grok-imagine-image microsoft/kosmos-2.5
    """,
    "text, code, judge and guard models": """
        qwen3-coder-480b-a35b-instruct qwen/qwen3-coder:free Qwen/Qwen2.5-7B-Instruct
        Qwen/Qwen2.5-Coder-32B-Instruct Qwen/Qwen3-8B qwen3:8b Qwen/Qwen3-30B-A3B-Instruct-2507
        qwen/qwen3-next-80b-a3b-instruct Qwen/Qwen3Guard-Gen-8B Qwen/QwQ-32B qwen3.5-coder deepseek-v4-pro
        deepseek/deepseek-v4-flash deepseek-ai/DeepSeek-V3.1 deepseek-r1:70b deepseek-coder-v2 z-ai/glm-4.5
        z-ai/glm-4.6 z-ai/glm-5 zai-org/GLM-4.5-Air-FP8 glm-4.7-flash moonshotai/kimi-k2-0905
        moonshotai/Kimi-K2-Instruct moonshotai/kimi-k2-thinking mistral-large-2512 mistralai/mistral-large-3
        xiaomi/mimo-v2-flash XiaomiMiMo/MiMo-7B-RL grok-code-fast-1 grok-3-mini openai/gpt-oss-120b gpt-5-codex
        gpt-5.1-codex-max gpt-3.5-turbo meta-llama/llama-guard-4-12b amazon.nova-micro-v1:0 claude-2.1
        claude-instant-1.2 gemma2:9b google/codegemma-7b-it google/shieldgemma-2-4b-it nvidia/Qwen3-VL-8B-Reward
        Qwen/Qwen2.5-VL-7B-Judge doubao-seed-code-preview-251028 doubao-seed-2-0-code-preview-260215
        doubao-1-5-pro-32k-250115 baidu/ERNIE-4.5-21B-A3B-Thinking LiquidAI/LFM2.5-1.2B-Instruct
        minimax/minimax-m2.1 Qwen/WorldPM-72B
    """,
    "another model's fine-tunes": """
        Qwen2.5-VL-7B-Instruct-my-finetune qwen3-vl-8b-finetuned-invoices InternVL3-8B-mydomain-lora
        qwen2.5-vl-7b-instruct-sft huihui-ai/Huihui-Qwen3-VL-8B-Instruct-abliterated
        Qwen3-VL-8B-Instruct-abliterated-GGUF Qwen2.5-VL-7B-Instruct-GRPO-geo my-qwen2.5-vl-tuned qwen2.5vl:invoices
        me/qwen3-vl:my-lora ft:gpt-4o-2024-08-06:org:boxes:AbC123 Qwen3.5-27B-Claude-4.6-Opus-Reasoning-Distilled
        omlab/VLM-R1-Qwen2.5VL-3B-REC-500steps allenai/olmOCR-2-7B-1025 nanonets/Nanonets-OCR2-3B reducto/RolmOCR
        PaliGemma-3b-ft-refcoco-seg-224 google/paligemma-3b-ft-widgetcap-448 OpenGVLab/Mini-InternVL2-4B-DA-DriveLM
        Qwen3-VL-30B-A3B-Instruct-heretic florence-2-base-ft-docvqa thwri/CogFlorence-2-Large-Freeze
        microsoft/Florence-2-large-PromptGen MiaoshouAI/Florence-2-base-PromptGen-v2.0 glm-4.1v-9b-ui
        allenai/MolmoAct-7B-D-0812 nvidia/Cosmos-Reason1-7B Hcompany/Holo1.5-7B ServiceNow/GroundNext-7B-V0
        osunlp/UGround-V1-7B Qwen3-VL-8B-Instruct-Unredacted-MAX Qwen2.5-VL-7B-Instruct-merged moondream2-gaze
        claude-opus-4-6-distill minicpm-v-4.5-rlaif vikhyatk/moondream2-custom internvl3_5-8b-robot
        LocateAnything-3B-drones
    """,
    "models of which nothing was found": """
        llava:13b llava-hf/llava-1.5-7b-hf llava-1.6 microsoft/Phi-4-multimodal-instruct
        meta-llama/Llama-4-Maverick-17B-128E-Instruct meta-llama/Llama-3.2-11B-Vision-Instruct
        mistralai/Pixtral-12B-2409 pixtral-large-latest mistral-medium-3.1 mistralai/Ministral-3-8B-Instruct
        google/gemma-3-27b-it gemma3:12b gemma3n:e4b google/medgemma-4b-it AIDC-AI/Ovis2.5-9B
        Kwai-Keye/Keye-VL-1_5-8B Skywork/Skywork-R1V3-38B stepfun-ai/step3 stepfun-ai/Step3-VL-10B
        moonshotai/kimi-k2.5 openbmb/MiniCPM-V-4 openbmb/MiniCPM-o-4_5 minicpm-v:8b openbmb/MiniCPM-V-4_6
        THUDM/glm-4v-9b glm-4v-plus zai-org/cogvlm2-llama3-chat-19B baidu/ernie-4.5-vl-424b-a47b
        nvidia/nemotron-nano-12b-v2-vl HuggingFaceTB/SmolVLM2-2.2B-Instruct ibm-granite/granite-vision-3.3-2b
        rednote-hilab/dots.ocr PaddlePaddle/PaddleOCR-VL deepseek-ai/DeepSeek-OCR-2 deepseek-ai/deepseek-vl-7b-chat
        LiquidAI/LFM2-VL-1.6B LiquidAI/LFM2.5-VL-1.6B tencent/HunyuanImage-3.0 o3 o4-mini grok-4 grok-4-0709
        grok-2-vision-1212 x-ai/grok-4-fast gpt-4-turbo gpt-4.5-preview gemini-1.5-pro gemini-pro-vision
        gemini-exp-1206 amazon.nova-premier-v1:0 qwen-vl-max qwen-vl-max-latest qwen-vl-plus qwen-vl-ocr qvq-max
        qwen3.7-max qwen3.5-omni-plus claude-opus-4-9 claude-opus-6 claude
        application-inference-profile/abcdef123456 your-deployment default model my-vlm embedded-opencv internvl
        qwen gemini-4-pro Qwen/Qwen3.9-27B muse amazon/nova-2-lite-v1 global.amazon.nova-2-lite-v1:0
    """,
}
# As routers, clouds, hubs and local servers pass a model on; names that were seen in their
# catalogues or documentation.
ROUTED = {
    "gemini": """
        google/gemini-2.5-flash:online google/gemini-2.5-pro:floor google/gemini-2.5-flash:nitro
        openrouter/google/gemini-3-pro-preview:online google/gemini-2.5-flash:free:online
        publishers/google/models/gemini-2.5-pro@default vertex_ai/gemini-2.5-pro@001 gemini-2.5-flash:high
        google/gemini-2.5-flash:thinking google/gemini-2.5-flash:batch google/gemini-3.8-flash:exacto
    """,
    "gemma-4": "google/gemma-4-31b-it:fastest google/gemma-4-31b-it:cerebras gemma4:e4b-it-q4_K_M:2",
    "qwen2.5-vl": """
        Qwen/Qwen2.5-VL-7B-Instruct:hyperbolic Qwen/Qwen2.5-VL-72B-Instruct:nebius qwen2.5vl:7b-q8_0
        hosted_vllm/Qwen/Qwen2.5-VL-7B-Instruct qwen/qwen2.5-vl-72b-instruct:tools
    """,
    "qwen3-vl": """
        qwen/qwen3-vl-8b-instruct:online qwen/qwen3-vl-8b-instruct:free qwen/qwen3-vl-8b-thinking:thinking
        Qwen/Qwen3-VL-8B-Instruct:fireworks-ai Qwen/Qwen3-VL-8B-Instruct:novita Qwen/Qwen3-VL-8B-Instruct:fastest
        Qwen/Qwen3-VL-235B-A22B-Instruct:together Qwen/Qwen3-VL-30B-A3B-Instruct:featherless-ai
        Qwen/Qwen3-VL-8B-Instruct:cheapest Qwen/Qwen3-VL-8B-Instruct:preferred qwen3-vl:8b-instruct-q4_K_M
        qwen/qwen3-vl-8b:2 qwen/qwen3-vl-8b@4bit qwen/qwen3-vl-8b@q4_k_m:2 qwen3-vl:latest qwen3-vl:32b-thinking
        qwen3-vl-flash-us qwen3-vl-flash-2025-10-15-us qwen3-vl-flash-2026-01-22-us dashscope/qwen3-vl-plus
        qwen/qwen3-vl-8b-instruct:reasoning-exclude qwen/qwen3-vl-8b-instruct:nitro:high ollama_chat/qwen3-vl:8b
        hf.co/unsloth/Qwen3-VL-8B-Instruct-GGUF:UD-Q4_K_XL together_ai/Qwen/Qwen3-VL-32B-Instruct
        nebius/Qwen/Qwen3-VL-8B-Instruct-FP8:throughput
    """,
    "qwen3.5": """
        qwen/qwen3.8-27b-free qwen/qwen3.8-27b:online qwen/qwen3.6-27b:deepinfra qwen/qwen3.8-max:nitro
        alibaba/qwen3.7-plus qwen/qwen3.8-flash:exacto
    """,
    "glm-v": "z-ai/glm-4.6v:online zai-org/GLM-4.5V:zai-org zai-org/GLM-4.6V:novita z-ai/glm-5v-turbo:floor",
    "claude": """
        anthropic/claude-sonnet-4.5:online anthropic/claude-3.7-sonnet:thinking:online anthropic/claude-3-haiku:self-moderated
        bedrock/us-west-2/us.anthropic.claude-sonnet-4-5-20250929-v1:0 claude-opus-4-5@20251101
        arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-5-sonnet-20241022-v2:0
        publishers/anthropic/models/claude-haiku-4-5@20251001 anthropic/claude-sonnet-4.6:cheap
    """,
    "claude-high-resolution": "anthropic/claude-opus-5.5:online anthropic/claude-opus-4.8:batch azure_ai/claude-opus-4-8",
    "gpt": "openai/gpt-5.2:online openai/gpt-4o:online openai/gpt-6-luna:nitro openai/gpt-5.6-sol:max",
    "kimi-k2": "moonshotai/kimi-k2.6:tools kimi-k2.6:nitro @cf/moonshotai/kimi-k2.6",
    "seed-vl": "bytedance-seed/seed-1.6:online",
}
NOT_ROUTED = """
    gpt-5-image openai/gpt-5-image:nitro openai/gpt-5-image-mini
    google/gemini-2.5-flash-image:online gemini-embedding google/gemini-3-pro-image-preview:free
    qwen/qwen3-vl-embedding:free qwen3-vl-reranker Qwen/Qwen3-VL-Reranker-8B:novita
    qwen-image-edit qwen-image-edit-plus claude-instant anthropic/claude-instant-v1
    anthropic/claude-2.1:beta glm-4.6 z-ai/glm-4.6:exacto glm-4.6:cloud grok-4.5-image
    grok-imagine-image-2.0 gemma-4-embedding google/embeddinggemma-300m:free qwen3-vl:llama3
    qwen3-vl:8b-invoices qwen3-vl:embedding somebody/qwen3-vl-8b-instruct:my-online
    qwen3-vl-8b-instruct-online qwen3-vl:online-8b qwen/qwen3-vl-8b-instruct-fireworks-ai
    gpt-4o-nitro qwen3-vl-8b-us internvl3-8b-us qwen2.5vl:qwen3-vl-8b qwen3-vl:qwen2.5-vl-7b
    gemma4:gemma3 qwen3-vl-online:8b gemini-2.5-flash-image:latest charaf/qwen3-vl-embedding-8b
    haervwe/qwen3-vl-8b-heretic qwen3.8-omni-flash qwen/qwen3.8-coder:free grok-4.7-search
    grok-4.7-multi-agent grok-4.20-reasoning grok-4.20-0309-non-reasoning x-ai/grok-4-fast:free
    grok-4-1-fast-reasoning grok-code-fast-1:online gpt-6-codex gpt-image-2
    gpt-oss-120b:cerebras gpt-5.7 google/gemini-2.5-flash@preset/boxes mistral-large-3:675b
    mistralai/mistral-large-3-675b-instruct-2512 kimi-k2.7-code moonshotai/Kimi-K2.5:novita
    kimi-k2-thinking:online claude-gpt-6-astra molmo-act-7b allenai/MolmoWeb-8B
    omlab/VLX-Seek-2B VLM-R1-Qwen2.5VL-3B qwen3.7-max:online qwen-plus-us qwen-flash-us
    nova-canvas:free 2 :online :
"""
ROWS = [(name, family) for family, names in KNOWN.items() for name in names.split()]
ROWS += [(name, family) for family, names in ROUTED.items() for name in names.split()]
OTHERS = [name for names in NOT_KNOWN.values() for name in names.split()] + NOT_ROUTED.split()


@pytest.mark.slow
def test_a_name_is_of_its_family_however_it_is_written() -> None:
    found = {model: format_of_model(model) for model, _ in ROWS}
    families = {model: format and format.name for model, format in found.items()}
    assert families == dict(ROWS)


@pytest.mark.slow
def test_a_name_that_only_begins_like_a_family_is_none_of_it() -> None:
    found = {model: format_of_model(model) for model in OTHERS}
    assert found == dict.fromkeys(OTHERS)


def test_every_family_is_tried_and_no_name_twice() -> None:
    names = [name for name, _ in ROWS] + OTHERS

    assert set(KNOWN) == set(known_formats())
    assert len(set(names)) == len(names)
    assert len(names) >= 480
    beginnings = [squeezed(name) for family in known_formats().values() for name in family.models]
    assert len(set(beginnings)) == len(beginnings)
    assert "*" not in "".join(beginnings)


@pytest.mark.slow
@given(st.sampled_from(ROWS), st.from_regex(r"[a-z]{6,12}", fullmatch=True))
def test_a_word_that_means_nothing_makes_it_another_model(row: tuple[str, str], word: str) -> None:
    # behind a colon stands what a router was told
    name = row[0].partition("#")[0].partition(":")[0]

    assert format_of_model(f"{name}-{word}ish") is None


def test_a_model_that_draws_no_boxes_is_refused_with_what_it_answers() -> None:
    with pytest.raises(SpecError, match="'molmo-point' answer with points, not boxes: use another"):
        find_box_format("molmo-point", "allenai/MolmoPoint-8B")
    with pytest.raises(SpecError, match="'vlm-fo1' answer with region numbers, not boxes: use"):
        find_box_format("auto", "omlab/VLM-FO1_Qwen2.5-VL-3B-v01")


@pytest.mark.slow
@pytest.mark.parametrize(
    "part", ["-2020-20-20", "-05-20", ":v1.1", "-q4_k_m", "us.", "(", "-", ":2", ":free", "@"]
)
def test_a_name_that_was_made_to_take_long_takes_no_time(part: str) -> None:
    """The first kept the program busy for minutes at 20 repetitions: each can be read
    in two ways.
    """
    for name in (f"qwen3-vl{part * 200}-x", f"{part * 200}qwen3-vl"):
        format_of_model(name)


def test_a_users_own_row_takes_any_text_where_it_has_a_star() -> None:
    models = ["my-model*", "qwen3-vl-8b-finetuned*"]
    rows = [{"models": models, "order": "yxyx", "scale": 1024, "name": "mine"}]
    known = ["my-model", "me/My_Model-anything-at-all", "unsloth_my-model-v2"]
    for model in (*known, "qwen3-vl-8b-finetuned-invoices"):
        found = format_of_model(model, rows)
        assert found is not None
        assert found.name == "mine"
    assert format_of_model("not-my-model", rows) is None


@pytest.mark.parametrize("suffix", ["online", "somethingnew", "ultra-fast-2", "eu"])
def test_any_suffix_of_a_router_is_known_behind_a_vendors_name_and_no_other(suffix: str) -> None:
    routed = find_box_format("auto", f"openrouter/qwen/qwen3-vl-8b-instruct:{suffix}")
    assert routed.name == "qwen3-vl"
    assert find_box_format("auto", f"google/gemini-2.5-flash:{suffix}").name == "gemini"
    if suffix != "online":
        with pytest.raises(SpecError):
            find_box_format("auto", f"somebody/qwen3-vl-8b:{suffix}")
    with pytest.raises(SpecError):
        find_box_format("auto", f"qwen/qwen3-vl-embedding:{suffix}")
