"""Ordinary scripts that learn to choose actions.

Each is a function of the library it imports (`torch` or tracegrad), of what is compiled (`wrap`
takes a step or a model) and of the number of steps.
"""

import copy

import numpy as np
from scripts_images import fill, numbers, weights


def actor_critic(torch, wrap, steps=4):
    """Policy gradients: log probabilities by gather, an entropy bonus, returns in a Python loop."""
    nn, F = torch.nn, torch.nn.functional

    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.affine1 = nn.Linear(4, 8)
            self.action_head = nn.Linear(8, 3)
            self.value_head = nn.Linear(8, 1)
            self.saved_actions = []
            self.rewards = []

        def forward(self, x):
            x = F.relu(self.affine1(x))
            return F.softmax(self.action_head(x), dim=-1), self.value_head(x)

    model = fill(torch, Policy())
    net = wrap(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    eps = np.finfo(np.float32).eps.item()

    def train_step(states, actions, returns):
        returns = (returns - returns.mean()) / (returns.std() + eps)
        probs, values = net(states)
        values = values.squeeze(-1)
        log_prob = torch.log(probs.gather(1, actions.unsqueeze(1)).squeeze(1))
        advantage = returns - values.detach()
        entropy = -(probs * probs.log()).sum(-1).mean()
        policy_losses = []
        for lp, a in zip(log_prob, advantage):
            policy_losses.append(-lp * a)
        loss = torch.stack(policy_losses).sum() + F.smooth_l1_loss(values, returns) - 0.01 * entropy
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return loss, entropy

    train_step = wrap(train_step)
    log = []
    for i in range(steps):
        rewards = np.random.RandomState(i % 3).rand(6).tolist()
        R, returns = 0.0, []
        for r in rewards[::-1]:
            R = r + 0.99 * R
            returns.insert(0, R)
        states = torch.tensor(numbers(i % 3, 6, 4))
        actions = torch.tensor(np.random.RandomState(i).randint(0, 3, 6))
        log += [v.item() for v in train_step(states, actions, torch.tensor(returns))]
    with torch.no_grad():
        probs, value = model(torch.tensor(numbers(60, 1, 4)))
        action = torch.multinomial(probs, 1)
        assert action.shape == (1, 1)
    return {"log": log, "probs": probs.numpy(), "value": value.item(), **weights(model)}


def ppo_with_distributions_by_hand(torch, wrap, steps=4):
    """A clipped surrogate objective with a learnt log standard deviation, several epochs a rollout."""
    nn = torch.nn

    def layer_init(layer, std=2**0.5, bias_const=0.0):
        torch.nn.init.orthogonal_(layer.weight, std)
        torch.nn.init.constant_(layer.bias, bias_const)
        return layer

    class Agent(nn.Module):
        def __init__(self):
            super().__init__()
            self.critic = nn.Sequential(layer_init(nn.Linear(3, 6)), nn.Tanh(), nn.Linear(6, 1))
            self.actor_mean = nn.Sequential(
                layer_init(nn.Linear(3, 6)), nn.Tanh(), layer_init(nn.Linear(6, 2), std=0.01)
            )
            self.actor_logstd = nn.Parameter(torch.zeros(1, 2))

        def forward(self, x, action):
            mean = self.actor_mean(x)
            logstd = self.actor_logstd.expand_as(mean)
            std = torch.exp(logstd)
            logprob = -((action - mean) ** 2) / (2 * std**2) - logstd - 0.5 * np.log(2 * np.pi)
            entropy = 0.5 + 0.5 * np.log(2 * np.pi) + logstd
            return logprob.sum(1), entropy.sum(1), self.critic(x)

    agent = fill(torch, Agent())
    net = wrap(agent)
    optimizer = torch.optim.Adam(agent.parameters(), lr=2.5e-3, eps=1e-5)

    def train_step(obs, actions, old, advantages, returns, values, clip_coef):
        logprob, entropy, value = net(obs, actions)
        logratio = logprob - old
        ratio = logratio.exp()
        with torch.no_grad():
            approx_kl = ((ratio - 1) - logratio).mean()
            clipfrac = ((ratio - 1.0).abs() > clip_coef).float().mean()
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        pg_loss1 = -advantages * ratio
        pg_loss2 = -advantages * torch.clamp(ratio, 1 - clip_coef, 1 + clip_coef)
        pg_loss = torch.max(pg_loss1, pg_loss2).mean()
        value = value.view(-1)
        v_clipped = values + torch.clamp(value - values, -clip_coef, clip_coef)
        v_loss = 0.5 * torch.max((value - returns) ** 2, (v_clipped - returns) ** 2).mean()
        loss = pg_loss - 0.01 * entropy.mean() + v_loss * 0.5
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
        optimizer.step()
        return loss, approx_kl, clipfrac

    train_step = wrap(train_step)
    b_obs, b_actions = torch.tensor(numbers(0, 12, 3)), torch.tensor(numbers(1, 12, 2))
    with torch.no_grad():
        b_old, _, b_values = agent(b_obs, b_actions)
        b_values = b_values.flatten()
    b_adv = torch.tensor(numbers(2, 12))
    b_returns = b_adv + b_values
    order, log = np.arange(12), []
    for epoch in range(max(1, steps // 3)):
        np.random.RandomState(epoch).shuffle(order)
        frac = 1.0 - epoch / 20
        optimizer.param_groups[0]["lr"] = frac * 2.5e-3
        for start in range(0, 12, 4):
            mb = order[start : start + 4]
            batch = [t[mb] for t in (b_obs, b_actions, b_old, b_adv, b_returns, b_values)]
            log += [v.item() for v in train_step(*batch, 0.2)]
    explained = 1 - np.var((b_returns - b_values).numpy()) / np.var(b_returns.numpy())
    return {"log": log, "explained": float(explained), **weights(agent)}


def soft_actor_critic(torch, wrap, steps=4):
    """Twin critics, target networks by deepcopy and lerp, three optimisers, a learnt temperature."""
    nn, F = torch.nn, torch.nn.functional

    def mlp(sizes, activation=nn.ReLU, output_activation=nn.Identity):
        layers = []
        for j in range(len(sizes) - 1):
            act = activation if j < len(sizes) - 2 else output_activation
            layers += [nn.Linear(sizes[j], sizes[j + 1]), act()]
        return nn.Sequential(*layers)

    class Actor(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp([3, 8, 8], output_activation=nn.ReLU)
            self.mu, self.log_std = nn.Linear(8, 2), nn.Linear(8, 2)

        def forward(self, obs, noise):
            h = self.net(obs)
            mu, log_std = self.mu(h), torch.clamp(self.log_std(h), -20, 2)
            pre = mu + log_std.exp() * noise
            logp = (-0.5 * noise.pow(2) - log_std - 0.5 * np.log(2 * np.pi)).sum(axis=-1)
            logp -= (2 * (np.log(2) - pre - F.softplus(-2 * pre))).sum(axis=1)
            return torch.tanh(pre), logp

    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.q1, self.q2 = mlp([5, 8, 1]), mlp([5, 8, 1])

        def forward(self, obs, act):
            x = torch.cat([obs, act], dim=-1)
            return torch.squeeze(self.q1(x), -1), self.q2(x).squeeze(-1)

    actor, critic = fill(torch, Actor(), 1), fill(torch, Critic(), 2)
    target = copy.deepcopy(critic)
    for p in target.parameters():
        p.requires_grad = False
    log_alpha = torch.zeros(1, requires_grad=True)
    pi, q = wrap(actor), wrap(critic)
    opt_pi = torch.optim.Adam(actor.parameters(), lr=1e-3)
    opt_q = torch.optim.Adam(critic.parameters(), lr=1e-3)
    opt_alpha = torch.optim.Adam([log_alpha], lr=1e-2)

    def update(o, a, r, o2, d, n1, n2):
        alpha = log_alpha.exp().detach()
        with torch.no_grad():
            a2, logp2 = pi(o2, n1)
            backup = r + 0.99 * (1 - d) * (torch.min(*target(o2, a2)) - alpha * logp2)
        q1, q2 = q(o, a)
        loss_q = ((q1 - backup) ** 2).mean() + ((q2 - backup) ** 2).mean()
        opt_q.zero_grad()
        loss_q.backward()
        opt_q.step()
        for p in critic.parameters():
            p.requires_grad = False
        act, logp = pi(o, n2)
        loss_pi = (alpha * logp - torch.min(*q(o, act))).mean()
        opt_pi.zero_grad()
        loss_pi.backward()
        opt_pi.step()
        for p in critic.parameters():
            p.requires_grad = True
        loss_alpha = -(log_alpha * (logp - 2.0).detach()).mean()
        opt_alpha.zero_grad()
        loss_alpha.backward()
        opt_alpha.step()
        with torch.no_grad():
            for p, p_targ in zip(critic.parameters(), target.parameters()):
                p_targ.data.mul_(0.95)
                p_targ.data.add_((1 - 0.95) * p.data)
        return loss_q, loss_pi, alpha

    update = wrap(update)
    log = []
    for i in range(steps):
        k = i % 3
        d = torch.as_tensor((np.arange(5) == k).astype(np.float32))
        batch = [torch.as_tensor(numbers(7 * k + j, 5, n)) for j, n in enumerate((3, 2, 3, 2, 2))]
        o, a, o2, n1, n2 = batch
        log += [v.item() for v in update(o, a, torch.tensor(numbers(k, 5)), o2, d, n1, n2)]
    return {
        "log": log,
        **weights(actor),
        **weights(critic),
        **{f"target.{k}": v for k, v in weights(target).items()},
    }


SCRIPTS = [actor_critic, ppo_with_distributions_by_hand, soft_actor_critic]
