"""Texts on which tokenizers differ: code, scripts, emoji, white space, control characters, digits, contractions."""

# ruff: noqa: E501 - a text is one line here, whatever its length

from __future__ import annotations

import random

_CODE = (
    "def f(x: int) -> int:\n    if x < 2:\n        return x\n\treturn f(x - 1) + f(x - 2)  # 1, 1, 2, 3\n\n\nprint(f(10))\n",
    '#include <stdio.h>\r\nint main(void) {\r\n\tprintf("%d\\n", 0x7fff);\r\n\treturn 0;\r\n}\r\n',
    "SELECT a.id, COUNT(*) FROM users AS a WHERE a.name LIKE '%o''brien%' GROUP BY 1 HAVING COUNT(*) >= 10;",
    "const x = {...y, z: [1,2,3].map(n=>n**2)}; // ok?\nlet s = `${x}`;\n",
    '<div class="a b"><p>Hi &amp; bye</p><br/></div>\n<table><tr><td>1</td></tr></table></s><s>',
    'fn main() { let v: Vec<u8> = vec![0; 1_000]; println!("{:?}", &v[..10]); }',
    "a+=b;c-=d;e*=f;g/=h;i%=j;k**=l;m<<=n;o>>=p;q&=r;s|=t;u^=v;!w;x!=y;z===0;a!==b;a->b;a::b;a..b;a...b",
    "https://user:pw@example.com:8080/a/b.html?q=1&r=%20#frag mailto:x.y+z@example.org C:\\Windows\\System32",
    '{"a": [1, 2.5e-10, null, true], "b": {"c": "\\u00e9\\n"}}',
    "HTTPServer getHTTPResponseCode XMLHttpRequest snake_case_name SCREAMING_CASE camelCase PascalCase iPhone eBay",
)
_PROSE = (
    "Hello world",
    " Hello world",
    "Hello, World! How are you? I'm fine; you're not. They've said it'll be OK, won't it? She'd know, I'd've thought.",
    "IT'S 'S 'T 'RE 'VE 'M 'LL 'D 's 't 're 've 'm 'll 'd 'Ll 'vE 'x 'sa ''s '' ' s o'clock rock'n'roll ‘it’s’ don’t",
    "It costs $1,234.56 (or 1.234,56 €) + 7% VAT = ~£1,300; 3/4 of 1²³ ½ Ⅻ ① ٣٤٥ ४५६ 五 〇 𝟘𝟙𝟚 1234567890 12 123 1234 12345",
    "3.14159265358979 -1e10 0xDEADBEEF 0b1010 1_000_000 2024-02-29T23:59:60Z +49 (0)30 123456 1st 2nd 10th v1.2.3-rc4",
    "naïve café résumé Zürich Straße ŒUVRE ÆØÅ İstanbul ıssız ǅ ǆ Ǆ ﬁ ﬀ ſ ß ẞ K Å µ",
    "e\u0301 a\u0308\u0323 n\u0303 Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349 cafe\u0301s'S",
    "Привет, мир! Это проверка. Ёлка-ёлка. Україна ґанок",
    "Γειά σου Κόσμε ΑΒΓ άέή ὕ",
    "שָׁלוֹם עולם  مرحبا بالعالم، كيف حالك؟ ١٢٣ فارسی‌نویس",
    "नमस्ते दुनिया। क्ष त्र ज्ञ  বাংলা লেখা  தமிழ் எழுத்து  ภาษาไทยไม่มีช่องว่าง  ລາວ  ខ្មែរ  မြန်မာ",
    "你好，世界！这是一个测试。繁體字測試「引號」。２０２４年１月",
    "こんにちは世界。カタカナとひらがな、漢字。ﾊﾝｶｸ ーー々〆",
    "안녕하세요 세계! 한국어 띄어쓰기 테스트. ᄀᆞᄀ ㅋㅋㅋ",
    "𠀀𠮷野家 𪚥 鿿 㐀 𰻝 ⺀ ⿰",
    "ꓚꓲꓢ ᏣᎳᎩ ᓀᐦᐃᔭᐍᐏᐣ አማርኛ ქართული ᲥᲐᲠᲗᲣᲚᲘ Հայերեն ʻOkina ꞌ ᚠᚢᚦ 𐌰𐌱 𝓗𝓮𝓵𝓵𝓸 𝕳 ＡＢＣａｂｃ１２３",
)
_SYMBOLS = (
    "😀😃😄 👍🏽👩🏿‍💻 👩‍👩‍👧‍👦 🏳️‍🌈🏴‍☠️ 🇩🇪🇯🇵🇺 ❤️❤ ☺︎ 1️⃣ #️⃣ 🫠🪿 🧑🏻‍❤️‍💋‍🧑🏿🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "x😀y 😀 z\n😀\n\n😀😀😀😀😀😀😀😀 a👨‍👩b ‍ ️",
    "→←↑↓⇒⇔ ∀x∈ℝ: x²≥0 ∑∏∫√∞≈≠≤≥ ½⅓ ©®™ §¶†‡•… “quotes” „deutsch‟ «fr» ‹x› –— ‐‑",
    "!!!??? ... ,,, ;;; ::: ((([[[{{{}}}]]]))) <<<>>> ~~~ ``` ''' \"\"\" ___ --- === +++ *** /// \\\\\\ ||| &&& ^^^ %%% $$$ ### @@@",
    "a!b?c.d,e;f:g(h)i[j]k{l}m<n>o~p`q'r\"s_t-u=v+w*x/y\\z|a&b^c%d$e#f@g !a ?b .c ,d ;e :f (g )h [i ]j {k }l <m >n",
    "┌─┬─┐│█▓▒░ ▲△▼ ★☆ ♠♣♥♦ ♩♪ ⠁⠂ 🀄 🃏 ㊗ ㋿ ﷽ ﷺ",
    "# Title\n\n- a\n- **b** _c_ `d`\n\n1. x\n2. y\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> quote\n\n```py\nx\n```\n[l](u)!\n",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><s></s><unk><pad><bos><eos>[INST] x [/INST]<start_of_turn>model\n",
    "<|im_start <|im_end|> <|im_end| > <| im_end|>< |im_end|><|im_end|><|endoftext|<|endoftext|> <tool_call></tool_call>",
    "▁▁a▁b ▁ c▁▁▁ Ġa Ċ Ġ ĉ <0x0A> <0x41> [PAD151665] [EMPTY_3]",
)
_WHITE_SPACE = (
    "",
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\t",
    "\r\n",
    " \n",
    "\n ",
    "a ",
    " a",
    "a  ",
    "  a",
    "a   b    c     d",
    "a\tb\t\tc\t\t\td",
    "a\nb\n\nc\n\n\nd\n\n\n\n",
    "a\r\nb\r\n\r\nc\rd\r\re",
    " \t \n \r \n\t x \n  y\n\t z  \n\n  ",
    "a \n b  \n  c   \n   d",
    "a\u00a0b\u00a0\u00a0c \u00a0d\u3000\u3000e\u2003f\u2009g\u200ah\u202fi\u205fj\u1680k",
    "a\u0085b\u2028c\u2029d\u000be\u000cf\u001cg\u001dh\u001ei\u001fj \u0085 \u2028",
    "a\u200bb\u200cc\u200dd\u2060e\ufefff\u00adg\u180eh\u2800i \u200b ",
    "1 2  3   4\n5\n\n6 \n7",
    "! ?  .   ,\n;\n\n: \n-",
    " '  's 'S\n's\n 's  'll",
    "\n!\n ?\n\n.\r\n,\r\n\r\n; \r\n:",
    " " * 100 + "x" + " " * 101 + "\n" + "\t" * 40 + "y" + "\n" * 40 + "z" + "\r\n" * 20,
    "  \n" * 10 + "    if x:\n        pass\n",
)
_ODD = (
    "".join(map(chr, range(1, 32))) + "\x7f" + "".join(map(chr, range(0x80, 0xA0))),
    "a\x00b\x00\x00c \x00 ",
    "\x1b[31mred\x1b[0m\x07\x08",
    "\ufdd0\ufdef\ufffe\uffff\U0001fffe\U0010ffff \ufffd\ufffd \ufff9\ufffa\ufffb",
    "\ue000\uf8ff\U000f0000\U00100000 \U000e0001\U000e0041 \u0378\u0379 \U0001f9ff\U0001fae9",
    "\u1c89\u1c8a \ua7cb\ua7da \U000105c0\U00010d4a\U00010d40 \U0002ebf0\U0002ee5d \U00013460 \U0001e5f1x \u1b4e!",
    "\u202eRTL\u202c \u2066iso\u2069 \u061c \u034f",
    "ab" * 200,
    "a" * 300 + "B" * 300 + "ä" * 100 + "7" * 50,
    "x1y2z3" * 30 + "Aa" * 50 + "AAAAb" * 20 + "éÀÉa" * 20 + "ÀÉA" * 10,
    "ACGTTGCAACGT" * 30,
    "supercalifragilisticexpialidocious" * 5
    + "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "中" * 100 + "の" * 50 + "한" * 50 + "ก" * 60,
    "😀" * 60 + "👩‍👩‍👧‍👦" * 10,
    "!" * 100 + "=" * 80 + "-" * 77 + "." * 50 + "# " * 30 + "\u2014" * 20,
    "1" * 31 + " " + "12" * 20 + " " + "0" * 8,
    "İ'S ı'ſ K'ſ 'ſ 'K ÅB ΐ ŉ ǰ",
)
TEXTS: tuple[str, ...] = (*_CODE, *_PROSE, *_SYMBOLS, *_WHITE_SPACE, *_ODD)

# One or more of each class of character that a pre-split tells apart.
ALPHABET = (
    "aBcsStTrReEvVmMlLdD"
    + "09²٣½"
    + "éÀßあ中한ǅʰ"
    + "\u0301\u0903"
    + "  \n\n\r\t\u00a0\u2003\u0085"
    + "''!?.,$+<=>^~|`/_-§€°"
    + "\x01\u200d\u0378😀"
)


def random_texts(count: int, seed: int) -> list[str]:
    """Short texts with borders between classes everywhere."""
    rng = random.Random(seed)
    texts = []
    for _ in range(count):
        symbols = [rng.choice(ALPHABET) for _ in range(rng.randint(1, 30))]
        texts.append("".join(symbol * rng.choice((1, 1, 1, 2, 3, 5)) for symbol in symbols))
    return texts
