"""Thoughts that betray that the answer was told, and thoughts that only think aloud."""

import pytest
import yaml

from clinical_r1.synthesis.filters import BETRAYS, HINDSIGHT, UNLESS, told

TOLD = """
They told me that it's lymphoma.
The user provided the final diagnosis with the case.
The solution is lymphoma, as stated.
With the diagnosis already known, only the reasons are missing.
I remember from the prompt that the node was taken out.
After being told the answer, the fever fits.
Having been corrected, I start again.
题目里写的答案是淋巴瘤。
人家说是淋巴瘤，因此从发热说起。
既然知道了就是淋巴瘤，倒着想。
最终诊断既然为淋巴瘤。
任务提供了标准答案。
说明一下为什么诊断是淋巴瘤。
我被纠正后再想。
核查者没有同意。
The answer turned out to be sarcoidosis.
The task gives the diagnosis as sarcoidosis.
It was disclosed to me that this is sarcoidosis.
The true diagnosis is sarcoidosis, so why did I miss it?
The conclusion has to be sarcoidosis, as requested.
The conclusion we were given explains the hilar nodes.
My first guess of lymphoma was marked wrong.
I earlier answered lymphoma, which was incorrect.
The verification failed, so it is no lymphoma.
The right answer, sarcoidosis, was overlooked.
The problem tells us that the answer is sarcoidosis.
As the answer is sarcoidosis, the nodes come first.
By the supplied reference it is sarcoidosis.
事实证明诊断为结节病。
按任务要求，结论必须是结节病。
审阅者认为答案不对。
验证未通过，换个方向。
上一轮的结论有误。
我答了淋巴瘤，被判错误。
正确答案结节病被漏掉了。
目标诊断为结节病。
从已知的诊断出发。
I am supposed to end up at gout here, so let me build the case for it.
With gout as the target, the tophi are the natural starting point.
I have to make the reasoning land on gout.
My last try was judged incorrect, so I go another way.
The case is labelled gout, so I should find the clues for it.
According to the answer sheet, gout.
I must not mention that I was told it is gout.
题目要我得出痛风，所以要往这边推。
标签写的是痛风。
以痛风为目标，从痛风石说起。
我得让推理落到痛风上。
有人纠正我说是痛风。
The supplied diagnosis is Wilson disease, so the tremor and the liver must belong together.
Okay, the final answer, sarcoidosis, has been given; let me see how one gets there.
The right diagnosis is known to be lupus nephritis.
We already know it's appendicitis, so the location of the pain is the clue.
Knowing that the answer is gout, the tophi stand out.
I was told the answer is pulmonary embolism.
The true answer is actually pseudogout, as we were told.
I was given the diagnosis of Wilson disease, so I look for copper.
The user has told me that it is porphyria.
The prompt states that the correct diagnosis is porphyria.
We know from the solution that it is porphyria.
The labelled diagnosis is porphyria.
用户告诉我诊断是肺结核。
提示说是肺结核。
正确答案应该是肺结核，前面的推理有误。
需要得出肺结核这一结论。
Given that the correct diagnosis is Crohn disease, the skip lesions make sense.
Since the answer turns out to be anaemia, the murmur is a bystander.
It turned out that the correct diagnosis was porphyria.
The actual diagnosis is giant cell arteritis.
This agrees with the stated diagnosis of asthma.
Working backwards from the answer, the rash comes first.
Comparing with the correct answer, the calcium was overlooked.
The grader marked it as incorrect.
I have been told that my answer is wrong, so I look again.
My last answer was judged incorrect.
The earlier attempts ignored the eosinophils.
In the previous attempt the troponin was overlooked.
Since porphyria is the correct diagnosis, the colour of the urine counts.
As stated in the answer, it is sarcoidosis.
Turns out the right diagnosis was lupus.
给定的诊断是肺栓塞
参考诊断为胃溃疡，先看大便
最终答案已经给出，是肾病综合征
题干已经说明诊断是甲亢
既然诊断已经明确为溃疡性结肠炎，就从便血说起
我们已经知道最终诊断是哮喘
被告知正确答案是阑尾炎
正确诊断是干燥综合征，所以口干是关键
最终诊断是结节病，再回过头来看肺门
真实的诊断是肺结核
其实标准答案是肾结石
对照标准答案，淀粉酶升高是重点
从答案倒推，先有皮疹
复核者指出诊断有误
有人指出之前的结论不对
前几次尝试都没有考虑药物
鉴于正确答案是肺栓塞，再看心电图
按照答案去找依据
事实证明正确诊断是结节病
""".strip().splitlines()

ALOUD = """
The given diagnosis of measles as a child is doubtful.
They said it was a cold.
低钠血症被纠正后意识好转。
家属说是受凉，所以没有就诊。
The last attempt to place a drain failed.
Two attempts at cannulation were needed.
The reference range of calcium is given below.
He takes the tablets as instructed.
已知诊断为结节病的病人常有高钙血症。
按照要求空腹抽血。
治疗目标是降低血钙。
There is a specific term for what they want here, let me think.
The question wants the next step in management.
My task is to explain why he fainted, and it is to argue against ischemia if I can.
The label says to take it with food, and the label on the bottle reads 500 mg.
My first guess was found to be unlikely once the CT was read.
She was given to us as a transfer at night.
I am asked to find the most likely diagnosis.
题目要求给出最可能的诊断。
题目让我们判断下一步检查。
分诊标签写的是急诊。
CT提示指向胰头占位。
以降压为目标，先用硝普钠。
药师纠正我说剂量是一百毫克。
So the final diagnosis is sarcoidosis, because of the hilar nodes.
Hence the correct answer is B.
I would say the correct diagnosis is porphyria.
The final answer has to explain the rash as well.
My first guess was pneumonia, but the chest film is clear.
Wait, I was wrong about the calcium: it is low.
We are told that she smokes and that the cough began in May.
We know it's not bacterial, because the culture stayed empty.
She has a known diagnosis of lupus, made three years ago.
The patient was told that the diagnosis was migraine.
The diagnosis given by the outside hospital was asthma.
Given that the diagnosis is uncertain, an MRI comes first.
The correct diagnosis was missed for years in such families.
Two earlier attempts at smoking cessation failed.
The previous attempt at weaning ended in desaturation.
The expected response to colchicine is fast.
Negative feedback lowers the TSH.
Looking at the answer choices, only C explains the calcium.
Looking back at the answers that he gave, travel matters.
It turned out that he had stopped his tablets.
The radiologist noted that the liver was enlarged.
All of this leads to the final diagnosis of gout.
If gout is the right answer, crystals should be there.
After several failed attempts to quit, he still smokes.
He was given the diagnosis of gout in 2010.
The question tells us that it is a slow process.
医生告诉患者诊断为哮喘。
检查提示是肺结核。
正确答案应该是C，前面的选项都不能解释咯血。
需要推出这一诊断的依据。
所以最终诊断是结节病。
因此正确答案应为B。
正确的诊断取决于活检。
如果诊断是肺结核，痰涂片应为阳性。
既然没有发热，感染的可能性就小。
患者既往已知诊断为哮喘。
外院给出的诊断是胃炎，但治疗无效。
家属被告知诊断为肺癌。
题目问的是最可能的诊断。
根据题目给出的检查结果，血钙偏低。
根据诊断标准，这够四项。
第一次尝试减药后复发。
我再复核一下血钙。
实际上病程只有三天。
这些表现告诉我们诊断方向在肾脏。
反过来看，如果是感染，白细胞应当升高。
由于诊断尚不明确，需要活检。
几次尝试降压效果不佳。
""".strip().splitlines()


@pytest.mark.parametrize("text", TOLD)
def test_told_answers_are_found(text: str) -> None:
    assert told(f"Hmm, fever and cough. {text}") in UNLESS


@pytest.mark.parametrize("text", ALOUD)
def test_thinking_aloud_passes(text: str) -> None:
    assert told(text) == ""


def test_both_languages_know_the_same_kinds_and_each_kind_its_examples() -> None:
    rows = yaml.safe_load(HINDSIGHT.read_text(encoding="utf-8"))
    for kind, unless in UNLESS.items():
        assert rows[kind]["en"] and rows[kind]["zh"] and unless in {"", *rows}
        assert len(rows[kind]["matches"]) >= 2 and all(BETRAYS[kind].search(text) for text in rows[kind]["matches"])


def test_the_place_and_the_spelling_do_not_matter() -> None:
    assert told("Okay. THE EXPECTED ANSWER is gout") == told("so, the expected answer") == "given_answer"
    assert told("We’ve been told it’s gout") == "known_beforehand"
