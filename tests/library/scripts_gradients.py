"""Ordinary scripts whose gradients are unusual, or that choose actions, as functions of the library they
import, of what is compiled (`wrap` takes a step or a model) and of the number of steps.
"""

import copy

import numpy as np
from scripts_images import fill, numbers, weights


def pinn(torch, wrap, steps=4):
    """A physics-informed network: derivatives of the output by the input, twice, inside the loss."""
    nn = torch.nn

    class PINN(nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.activation = nn.Tanh()
            self.linears = nn.ModuleList(
                [nn.Linear(layers[i], layers[i + 1]) for i in range(len(layers) - 1)]
            )
            self.iter = 0
            for i in range(len(layers) - 1):
                nn.init.xavier_normal_(self.linears[i].weight.data, gain=1.0)
                nn.init.zeros_(self.linears[i].bias.data)

        def forward(self, x):
            a = x.float()
            for i in range(len(self.linears) - 1):
                a = self.activation(self.linears[i](a))
            return self.linears[-1](a)

    model = fill(torch, PINN([2, 6, 6, 1]))
    net = wrap(model)
    nu = nn.Parameter(torch.tensor([0.3]))
    model.register_parameter("nu", nu)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    mse = nn.MSELoss(reduction="mean")

    def residual(xt):
        g = xt.clone()
        g.requires_grad = True
        u = net(g)
        du = torch.autograd.grad(
            u, g, torch.ones([xt.shape[0], 1]), retain_graph=True, create_graph=True
        )[0]
        d2u = torch.autograd.grad(du, g, torch.ones(xt.shape), create_graph=True)[0]
        return du[:, [1]] + u * du[:, [0]] - nu * d2u[:, [0]]

    def train_step(inside, border, value):
        optimizer.zero_grad()
        f = residual(inside)
        loss = mse(net(border), value) + mse(f, torch.zeros_like(f))
        loss.backward()
        optimizer.step()
        return loss

    train_step = wrap(train_step)
    losses = []
    for i in range(steps):
        border = torch.tensor(numbers(i % 3 + 9, 4, 2))
        value = torch.sin(border[:, 0:1])
        losses.append(train_step(torch.tensor(numbers(i % 3, 6, 2)), border, value).item())
    return {"losses": losses, **weights(model)}


def adversarial(torch, wrap, steps=4):
    """Adversarial training by the fast gradient sign: the input is made to require gradients."""
    nn, F = torch.nn, torch.nn.functional
    model = fill(torch, nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)))
    net = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def fgsm(image, epsilon, grad):
        return torch.clamp(image + epsilon * grad.sign(), -3, 3)

    def train_step(x, y):
        x.requires_grad = True
        loss = F.cross_entropy(net(x), y)
        model.zero_grad()
        loss.backward()
        perturbed = fgsm(x, 0.1, x.grad.data)
        optimizer.zero_grad()
        adv = F.cross_entropy(net(perturbed), y)
        adv.backward()
        optimizer.step()
        return loss, adv

    train_step = wrap(train_step)
    log = []
    for i in range(steps):
        x, y = torch.tensor(numbers(i % 4, 6, 5)), torch.tensor([0, 1, 2, 0, 1, 2])
        log += [v.item() for v in train_step(x, y)]
        log.append(x.grad.abs().sum().item())
        assert x.requires_grad
    return {"log": log, **weights(model)}


def maml(torch, wrap, steps=3):
    """Model-agnostic meta-learning with functional weights: a gradient step inside the loss."""
    F = torch.nn.functional

    params = [
        torch.tensor(numbers(0, 5, 1, scale=0.5), requires_grad=True),
        torch.zeros(5, requires_grad=True),
        torch.tensor(numbers(1, 1, 5, scale=0.5), requires_grad=True),
        torch.zeros(1, requires_grad=True),
    ]
    meta = torch.optim.Adam(params, lr=1e-2)

    def forward(x, params):
        x = F.relu(F.linear(x, params[0], params[1]))
        return F.linear(x, params[2], params[3])

    def meta_step(xs, ys, xq, yq):
        total = 0.0
        for task in range(xs.shape[0]):
            fast = params
            for _ in range(2):
                loss = F.mse_loss(forward(xs[task], fast), ys[task])
                grads = torch.autograd.grad(loss, fast, create_graph=True)
                fast = list(map(lambda p: p[1] - 0.1 * p[0], zip(grads, fast)))
            total = total + F.mse_loss(forward(xq[task], fast), yq[task])
        total = total / xs.shape[0]
        meta.zero_grad()
        total.backward()
        meta.step()
        return total

    meta_step = wrap(meta_step)
    losses = []
    for i in range(steps):
        x = numbers(i % 3, 2, 6, 1)
        xs, xq = torch.tensor(x[:, :3]), torch.tensor(x[:, 3:])
        losses.append(meta_step(xs, torch.sin(xs), xq, torch.sin(xq)).item())
    return {"losses": losses, **{f"p{k}": p.detach().numpy() for k, p in enumerate(params)}}


def neural_ode(torch, wrap, steps=4):
    """A residual vector field integrated by Euler and Runge-Kutta steps in Python loops."""
    nn = torch.nn

    class ODEFunc(nn.Module):
        def __init__(self):
            super(ODEFunc, self).__init__()  # noqa: UP008
            self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
            self.nfe = 0
            for m in self.net.modules():
                if isinstance(m, nn.Linear):
                    nn.init.normal_(m.weight, mean=0, std=0.1)
                    nn.init.constant_(m.bias, val=0)

        def forward(self, t, y):
            return self.net(y**3) + 0.1 * t

    def odeint(func, y0, t, method="rk4"):
        ys = [y0]
        for t0, t1 in zip(t[:-1], t[1:]):
            h, y = t1 - t0, ys[-1]
            if method == "euler":
                ys.append(y + h * func(t0, y))
                continue
            k1 = func(t0, y)
            k2 = func(t0 + h / 2, y + h * k1 / 2)
            k3 = func(t0 + h / 2, y + h * k2 / 2)
            k4 = func(t1, y + h * k3)
            ys.append(y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
        return torch.stack(ys)

    func = fill(torch, ODEFunc())
    field = wrap(func)
    optimizer = torch.optim.RMSprop(func.parameters(), lr=1e-3)
    t = torch.linspace(0.0, 1.0, 5)

    def train_step(y0, target):
        optimizer.zero_grad()
        pred = odeint(field, y0, t)
        coarse = odeint(field, y0, t[::2], method="euler")
        loss = torch.mean(torch.abs(pred - target)) + (coarse[-1] - pred[-1]).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    train_step = wrap(train_step)
    losses = []
    for i in range(steps):
        y0 = torch.tensor(numbers(i % 3, 3, 1, 2, scale=0.5))
        losses.append(train_step(y0, torch.tensor(numbers(50, 5, 3, 1, 2))).item())
    return {"losses": losses, **weights(func)}


def custom_functions(torch, wrap, steps=4):
    """Straight-through rounding, a reversed gradient and a binarised layer as autograd.Function."""
    nn, F = torch.nn, torch.nn.functional

    class RoundSTE(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, bits):
            ctx.save_for_backward(x)
            scale = 2.0**bits
            return torch.round(x * scale) / scale

        @staticmethod
        def backward(ctx, grad_output):
            (x,) = ctx.saved_tensors
            return grad_output * (x.abs() <= 1).to(grad_output.dtype), None

    class ReverseLayerF(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, alpha):
            ctx.alpha = alpha
            return x.view_as(x)

        @staticmethod
        def backward(ctx, grad_output):
            output = grad_output.neg() * ctx.alpha
            return output, None

    class Swish(torch.autograd.Function):
        @staticmethod
        def forward(ctx, i):
            result = i * torch.sigmoid(i)
            ctx.save_for_backward(i)
            return result

        @staticmethod
        def backward(ctx, grad_output):
            i = ctx.saved_tensors[0]
            sigmoid_i = torch.sigmoid(i)
            return grad_output * (sigmoid_i * (1 + i * (1 - sigmoid_i)))

    class DANN(nn.Module):
        def __init__(self):
            super().__init__()
            self.feature = nn.Linear(5, 8)
            self.cls = nn.Linear(8, 3)
            self.domain = nn.Linear(8, 2)

        def forward(self, x, alpha):
            f = Swish.apply(self.feature(x))
            f = RoundSTE.apply(f, 4)
            return self.cls(f), self.domain(ReverseLayerF.apply(f, alpha))

    model = fill(torch, DANN())
    net = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def train_step(x, y, d):
        optimizer.zero_grad()
        cls, domain = net(x, 0.5)
        loss = F.cross_entropy(cls, y) + F.nll_loss(F.log_softmax(domain, 1), d)
        loss.backward()
        optimizer.step()
        return loss

    train_step = wrap(train_step)
    y, d = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 0, 1, 1])
    losses = [train_step(torch.tensor(numbers(i % 3, 4, 5)), y, d).item() for i in range(steps)]
    return {"losses": losses, **weights(model)}


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


SCRIPTS = [
    pinn,
    adversarial,
    maml,
    neural_ode,
    custom_functions,
    actor_critic,
    ppo_with_distributions_by_hand,
    soft_actor_critic,
]
