"""How far weight decay can shrink gamma in the paper's protocol and in the released code's."""

# e-folds by which decay alone shrinks gamma, sum(lr * decay) / (1 - momentum), on CIFAR-10 at batch 256, 196 steps an
# epoch: the text's 120 epochs at decay 5e-4, the released code's 100 epochs at 1e-4; both lr 0.3, / 10 at 50, 70, 90 %.
PAPER_GAMMA_DECAY, PAPER_DECAY_BUDGET = 5e-4, 18.4
RELEASED_GAMMA_DECAY, RELEASED_DECAY_BUDGET = 1e-4, 3.1
